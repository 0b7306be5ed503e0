"""Matching scores from one frozen forward pass: the project's core.

Latents, text states and prompts enter; the UNet's outputs per pair, scores and attention maps
leave. Imports `models`, `diffusion` and `prompts`; `benchmarks`, `few_shot` and commands may import
it.
"""
