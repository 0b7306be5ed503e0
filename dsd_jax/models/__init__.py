"""Stable Diffusion's three networks as pure functions; nothing else in dsd_jax imports Flax.

Dims, the same letters in annotations, einsums and comments everywhere:
B rows, I images, C captions, S sets of J captions, T timesteps, H W latent grid, Q = H*W queries,
L text positions, N heads, D head dim, K text width, F features (channels) of a hidden state.
"""
