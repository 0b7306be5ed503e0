"""Files, terminals and images from outside: what every other package reads and writes with.

Paths, bytes and JSON enter; typed values, RGB arrays and one-sentence `UserError`s leave. Imports
`dsd_jax.errors` alone; every package may import it.
"""
