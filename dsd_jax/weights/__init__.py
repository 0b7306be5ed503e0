"""A model folder in the Hugging Face layout, or a model on the Hub, to parameters and back.

A path or a Hub address enters; a `Model` leaves, or files that PyTorch diffusers loads. Imports
`models`, `diffusion` and `tensor_files`; `experiment`, `conversion` and commands may import it.
"""
