"""Learning prompts from a few labelled items.

Encoded items enter; prompts and their held-out losses leave. `prompt_training.train_prompts` is
where reading starts. Imports `benchmarks`, `matching` and `training`; `experiment` and `planning`
may import it.
"""
