"""Tokenization: captions to token ids, and the words that tokens belong to."""

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from dsd_jax.errors import UserError

WORD_END = "</w>"  # closes a word in CLIP's vocabulary


def tokenize(tokenizer: Any, captions: Sequence[str]) -> np.ndarray:
    """Return token ids (C, L) int32, padded as configured; L is 77 for Stable Diffusion.

    A caption that is too long is cut, with a warning that shows what was lost. Names of special
    tokens in a caption are plain text: "<|endoftext|>" does not end it.
    """
    length = tokenizer.model_max_length
    ids = _ids(tokenizer, list(captions))
    for row, caption in zip(ids, captions, strict=True):
        if len(row) > length:
            lost = tokenizer.decode(row[length - 1 : -1]).strip()
            warnings.warn(
                f"caption '{caption[:40]}...' has {len(row)} tokens, of which the model reads "
                f"{length}; cut off: '{lost}'",
                stacklevel=2,
            )
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    cut = [row if len(row) <= length else [*row[: length - 1], end] for row in ids]
    return np.array([[*row, *[pad] * (length - len(row))] for row in cut], np.int32)


def _ids(tokenizer: Any, captions: list[str]) -> list[list[int]]:
    """Return the token ids of each caption, from the start token to the end token.

    Captions that contain a special token's name are tokenized in a separate call. SD 2.x pads with
    "!", a special token of one letter, which is treated as in diffusers.
    """
    names = [name for name in tokenizer.all_special_tokens if len(name) > 1]
    quoted = [any(name in caption for name in names) for caption in captions]
    ids_of_row: dict[int, list[int]] = {}
    for split in (False, True):
        rows = [row for row, special in enumerate(quoted) if special == split]
        if rows:
            ids = tokenizer(
                [captions[row] for row in rows],
                truncation=False,
                padding=False,
                verbose=False,  # otherwise warns of "indexing errors" for what `tokenize` cuts
                split_special_tokens=split,
            )["input_ids"]
            ids_of_row |= zip(rows, ids, strict=True)
    return [ids_of_row[row] for row in range(len(captions))]


def check_texts(captions: Sequence[str]) -> list[str]:
    """Return captions as a list of strings, each of which may be empty.

    Raises:
        UserError: there is none, or one is not a string.
    """
    captions = [captions] if isinstance(captions, str) else list(captions)
    if not captions:
        raise UserError("no caption given; expected at least one.")
    for number, caption in enumerate(captions, 1):
        if not isinstance(caption, str):
            kind = type(caption).__name__
            raise UserError(f"caption {number} is a {kind}; expected a string.")
    return captions


def check_captions(captions: Sequence[str]) -> list[str]:
    """Return captions as a list of strings that are not blank.

    Raises:
        UserError: there is none, or one is empty or not a string.
    """
    captions = check_texts(captions)
    for number, caption in enumerate(captions, 1):
        if not caption.strip():
            raise UserError(f"caption {number} is empty; say what the image should show.")
        if any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise UserError(f"caption {number}, {caption!r}, has bytes that are no UTF-8.")
    return captions


def caption_words(tokenizer: Any, caption: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the words of a caption as the model reads them, and the token positions of each.

    Returns:
        Words, and (first, last + 1) positions in the (L,) ids of `tokenize`; words that are cut off
        are left out.
    """
    (ids,) = tokenize(tokenizer, [caption])
    pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
    end = ids.tolist().index(tokenizer.eos_token_id)
    words, spans, start = [], [], 1  # position 0 is the start token
    for position in range(1, end):
        if pieces[position].endswith(WORD_END) or position == end - 1:
            words.append(tokenizer.decode(ids[start : position + 1].tolist()).strip())
            spans.append((start, position + 1))
            start = position + 1
    return words, spans


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a SHA-256 of all that token ids depend on besides the caption."""
    numbers = tokenizer.model_max_length, tokenizer.eos_token_id, tokenizer.pad_token_id
    return hashlib.sha256(f"{tokenizer.backend_tokenizer.to_str()} {numbers}".encode()).hexdigest()
