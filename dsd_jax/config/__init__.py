"""Typed configs: `ml_collections` files become frozen, checked objects.

A config file and `--config.FIELD=VALUE` overrides enter; pydantic objects with ranges leave.
`FILE.py:VARIANT` is split in `config_files`; the file picks its variant by `defaults.choose`.
Imports `io` alone; every package may import the class of its own settings.
"""
