"""The processes and devices of a run: joining, agreeing, failing together, meshes and shardings.

Environment variables and arrays enter; meshes, shardings and values that all hosts share leave.
Imports `io`; every package that touches devices may import it.
"""
