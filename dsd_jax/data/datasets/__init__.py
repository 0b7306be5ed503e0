"""Readers of benchmarks, one file each: annotation files and images become `Examples`."""
