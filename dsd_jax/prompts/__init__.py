"""Prompts, the trained parameters beside the frozen model: LoRA, tokens and score weights.

A UNet's config enters; a prompts pytree, its files, its metadata and checks of both leave, or all
of it as `learned_prompts.Prompts`, which are saved, shared and written for diffusers. LoRA and
tokens are applied in `models.attention`, score weights in `matching.score_functions`. Imports
`models`, `diffusion`, `training` and `tensor_files`; `matching` and all above may import it.
"""
