"""Prompts, the trained parameters beside the frozen model: LoRA, tokens and score weights.

A UNet's config enters; a prompts pytree, its files, its metadata and checks of both leave. Imports
`models`, `diffusion` and `tensor_files`; `matching` and all above may import it.
"""
