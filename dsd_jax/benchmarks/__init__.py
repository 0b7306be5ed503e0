"""A benchmark's splits, encoded once and scored.

A config's `data` enters; `EncodedItems` and their scores leave. Imports `data`, `matching` and
`diffusion`; `few_shot`, `clip` and `experiment` may import it.
"""
