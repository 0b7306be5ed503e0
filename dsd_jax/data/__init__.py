"""Pictures and captions: the emoji scenes, the benchmark made of them, your own files."""
