"""The CLIP baseline that the diffusion matcher is compared with: zero-shot and fine-tuned.

A CLIP folder or Hub name, pixels and captions enter; unit vectors, scores and fine-tuned CLIPs
leave. Imports `models`, `weights`, `diffusion` and `training`; `experiment`, `planning` and
`pretraining` may import it.
"""
