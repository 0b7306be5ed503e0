"""Metrics of scores and standard errors, in NumPy.

Scores of items enter; outcomes, means and cluster-bootstrap errors leave. Imports nothing of
`dsd_jax`; every package may import it.
"""
