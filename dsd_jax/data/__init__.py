"""Data sets on disk, read item by item.

Annotation files and images enter; a `Benchmark` of named splits leaves, whose `Examples` hold
captions and the keys of images. The modules here import `io` alone; `datasets` holds the reader of
each benchmark, `synthetic` the scenes of the emoji benchmark, and `small_sets` makes data sets of
such scenes in the layouts of the public ones. `benchmarks` and what is above it may import them.
"""
