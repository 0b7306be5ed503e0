"""Small data sets of emoji scenes in the layouts of the public ones, to try the readers on."""
