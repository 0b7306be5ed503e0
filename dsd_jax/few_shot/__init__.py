"""Learning prompts from a few labelled items.

Encoded items enter; prompts and their held-out losses leave. `prompt_training.train_prompts` is
where reading starts; `learning.learn` does the same from images and captions in memory. Imports
`benchmarks`, `matching` and `training`; `experiment`, `planning` and `web` may import it.
"""
