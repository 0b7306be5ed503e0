"""A loaded Stable Diffusion, its noise schedule, timesteps, tokenizers and text states.

Parameters and configs enter; latents, noise and text states leave. Imports `models`, `distributed`
and `io`; everything that computes with a model may import it.
"""
