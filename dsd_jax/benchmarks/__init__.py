"""A benchmark's splits, encoded once and scored.

A config's `data` enters; `EncodedItems` and their scores leave. `registry` opens a benchmark,
`encoding` and `encoding_cache` run the frozen encoders, `table_rows` says which rows a table has
and computes their scores by `score_jobs`. Imports `data`, `matching` and `diffusion`; `few_shot`,
`clip` and `experiment` may import it.
"""
