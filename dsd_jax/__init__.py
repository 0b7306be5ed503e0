"""Discriminative Stable Diffusion in JAX: how well captions fit pictures, learned from few pairs.

What a notebook needs; each function's own module has more.
"""

from dsd_jax.errors import UserError
from dsd_jax.explain import explain
from dsd_jax.matching import match_terms
from dsd_jax.model import Model
from dsd_jax.scoring import match_scores
from dsd_jax.terms import Terms
from dsd_jax.version import __version__
from dsd_jax.weights.load import load

__all__ = [
    "Model",
    "Terms",
    "UserError",
    "__version__",
    "explain",
    "load",
    "match_scores",
    "match_terms",
]
