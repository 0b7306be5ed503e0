"""A loaded Stable Diffusion: its noise schedule and keyed noise, tokenizers and text states.

Params and configs enter; latents, noise and text states leave. Imports `models`, `distributed` and
`io`; everything that computes with a model may import it.
"""
