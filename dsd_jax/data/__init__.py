"""Pictures and captions: readers of benchmarks and of your own files, the emoji scenes."""
