"""Tensors in files: safetensors, Flax msgpack and PyTorch pickles, read without PyTorch.

Paths enter; names, shapes, dtypes and NumPy arrays leave, a tensor at a time. Imports `io`;
`weights`, `prompts` and `conversion` may import it.
"""
