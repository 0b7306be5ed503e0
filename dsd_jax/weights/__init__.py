"""Models in the Hugging Face layout, local or on the Hub: loaded strictly, saved, converted.

A path or a Hub address enters; a `Model` leaves, or files that PyTorch diffusers loads. Imports
`models`, `diffusion` and `tensor_files`; `experiment`, `conversion` and commands may import it.
"""
