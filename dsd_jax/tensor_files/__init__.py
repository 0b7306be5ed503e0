"""Tensors in files (safetensors, Flax msgpack, PyTorch pickles), read and written without PyTorch.

Paths enter; names, shapes, dtypes and NumPy arrays leave, a tensor at a time. Imports `io`;
`weights`, `prompts` and `conversion` may import it.
"""
