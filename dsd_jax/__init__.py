"""Discriminative Stable Diffusion in JAX: image-text matching, with few-shot prompt learning.

The public functions, for notebooks and other programs. Their modules are imported at first use, so
that `--help` and errors about paths appear before JAX has loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dsd_jax.distributed.xla_messages import silence_xla
from dsd_jax.errors import UserError
from dsd_jax.version import __version__

if TYPE_CHECKING:
    from dsd_jax.config.catalog import list_benchmarks, list_methods, list_models
    from dsd_jax.diffusion.pipeline import Model
    from dsd_jax.few_shot.learning import learn
    from dsd_jax.matching.batching import match_terms
    from dsd_jax.matching.explanation import Explanation, explain
    from dsd_jax.matching.forward import Terms
    from dsd_jax.matching.match_result import MatchResult, match
    from dsd_jax.matching.match_scores import match_scores
    from dsd_jax.prompts.learned_prompts import Prompts
    from dsd_jax.weights.model_loading import load

__all__ = [
    "Explanation",
    "MatchResult",
    "Model",
    "Prompts",
    "Terms",
    "UserError",
    "__version__",
    "explain",
    "learn",
    "list_benchmarks",
    "list_methods",
    "list_models",
    "load",
    "match",
    "match_scores",
    "match_terms",
]
_MODULES = {
    "Explanation": "matching.explanation",
    "MatchResult": "matching.match_result",
    "Model": "diffusion.pipeline",
    "Prompts": "prompts.learned_prompts",
    "Terms": "matching.forward",
    "learn": "few_shot.learning",
    "explain": "matching.explanation",
    "list_benchmarks": "config.catalog",
    "list_methods": "config.catalog",
    "list_models": "config.catalog",
    "load": "weights.model_loading",
    "match": "matching.match_result",
    "match_scores": "matching.match_scores",
    "match_terms": "matching.batching",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'dsd_jax' has no attribute '{name}'")
    silence_xla()
    return getattr(importlib.import_module(f"dsd_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, for tab completion."""
    return sorted(__all__)
