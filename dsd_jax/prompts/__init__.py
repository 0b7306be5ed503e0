"""The trained parameters, apart from the frozen model: LoRA, tokens and score weights.

A UNet's config enters; a prompts pytree, its files and checks of what it was learned for leave.
Imports `models`, `diffusion` and `tensor_files`; `matching` and all above may import it.
"""
