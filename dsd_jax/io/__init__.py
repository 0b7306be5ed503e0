"""Files, terminals and images from outside: what every other package reads and writes with.

Paths, bytes and JSON enter; typed values, RGB arrays and one-sentence `UserError`s leave. `storage`
reads and writes folders here and in buckets (`gs://`), `local_files` files of this machine alone;
`images` decodes pictures, with `image_formats` for the odd ones. Imports `dsd_jax.errors` alone;
every package may import it.
"""
