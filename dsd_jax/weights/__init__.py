"""Where weights come from, what they are called, and how they are written."""

from dsd_jax.weights.digest import weights_digest
from dsd_jax.weights.load import load
from dsd_jax.weights.save import save

__all__ = ["load", "save", "weights_digest"]
