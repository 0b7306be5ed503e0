"""Emoji scenes: sprites, captions that are true of them, and triples for the benchmark."""
