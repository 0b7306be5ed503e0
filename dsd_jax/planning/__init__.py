"""The memory, arithmetic and communication of a run's stages on a TPU slice, without a TPU.

A config and the name of a slice enter; each stage's jitted functions are compiled with shapes for
arguments, and a table of plans leaves. The command `plan` alone imports this package.
"""
