"""What the stages of a run take on a TPU slice, found by compiling them without a TPU."""
