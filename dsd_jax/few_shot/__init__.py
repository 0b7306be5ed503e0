"""Learning prompts from a few labelled items.

Encoded items enter; prompts and their held-out losses leave. Imports `benchmarks`, `matching` and
`training`; `experiment` and `planning` may import it.
"""
