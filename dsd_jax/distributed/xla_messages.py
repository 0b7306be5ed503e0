"""Messages of XLA on stderr, which are chosen by the environment before JAX is imported."""

import os
import sys

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def silence_xla() -> None:
    """Have jaxlib 0.10 leave out that each program it reads back is one for another machine.

    That is wrong, and two lines a program. Without effect once JAX has been imported.
    """
    usual = os.environ.get(_LEVEL, "1") == "1"  # JAX sets 1, which its child processes inherit
    if "jax" not in sys.modules and usual and is_talkative():
        os.environ[_LEVEL] = "3"


def is_talkative() -> bool:
    """Return whether XLA would print these messages for each compiled program it reads back."""
    from importlib import metadata  # heavy, for `import dsd_jax`

    try:
        version = metadata.version("jaxlib")
    except metadata.PackageNotFoundError:  # `env` tells it; other commands fail at the import
        return False
    return os.environ.get(_LEVEL) != "3" and version.startswith("0.10.")
