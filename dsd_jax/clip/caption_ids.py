"""Captions' token ids without the padding that no CLIP reads."""

import numpy as np

from dsd_jax.models.text_encoder import TextConfig

LEGACY_END = 2  # what configs before transformers 4.31 call the end token, whatever its number
_MULTIPLE = 8  # of tokens, lest every length be compiled


def without_padding(ids: np.ndarray, config: TextConfig) -> np.ndarray:
    """(C, L) -> (C, L'): columns behind every caption's end are left out, as far as it goes.

    A token sees only what stands before it, so the end token's state is the same without them.
    """
    end = config.end_token
    longest = int(np.argmax(ids if end == LEGACY_END else ids == end, axis=1).max()) + 1
    return ids[:, : -(-longest // _MULTIPLE) * _MULTIPLE]
