"""A loaded Stable Diffusion: its noise schedule and keyed noise, tokenizers and text states.

Params and configs enter; latents, noise and text states leave. `noising.keyed_noise` makes noise
from seed, image and timestep; `device_memory` says how many rows a call may have. Imports `models`,
`distributed` and `io`; everything that computes with a model may import it.
"""
