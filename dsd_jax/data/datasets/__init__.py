"""Readers of benchmarks, one file each.

The folder that a config names enters; a `Benchmark` leaves. They import `data`, `io` and, for the
emoji benchmark, `data.synthetic`; `data.small_sets` and `benchmarks` may import them.
"""
