"""Pairs of image and caption that are given in memory, and what fits neither: a split's items."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dsd_jax.data.examples import Example, Examples
from dsd_jax.data.negatives import Negatives
from dsd_jax.diffusion.tokenization import check_captions
from dsd_jax.errors import UserError
from dsd_jax.io.images import ImageInput, check_images, read_image
from dsd_jax.io.terminal import shorten

DRAWN = 3  # wrong captions of an item, where none are given
_IMAGE_FILES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def given_examples(
    images: Sequence[ImageInput] | np.ndarray,
    captions: Sequence[str],
    wrong: Sequence[Any] | None = None,
    *,
    seed: int = 0,
) -> Examples:
    """Return the items of n pairs, each with candidates that do not fit.

    Args:
        images: n paths, PIL images or uint8 arrays; equal ones are one image.
        captions: n captions, each of which fits its image.
        wrong: for each pair a caption or an image that does not fit, or a list of either; equally
            many of one sort everywhere. A string is a caption, unless it names an image's file.
            None draws up to `DRAWN` captions of other images.
        seed: of that draw.

    Raises:
        UserError: the lists do not fit each other, or there is nothing to draw.
    """
    sources: dict[Hashable, tuple[str, ImageInput]] = {}
    check_images(images)
    keys = [_add(sources, image, f"images[{i}]") for i, image in enumerate(images)]
    captions = check_captions(captions)
    if len(keys) != len(captions):
        raise UserError(
            f"there are {len(keys)} images and {len(captions)} captions; give one caption for "
            "each image, captions[i] for images[i]."
        )
    pairs = list(zip(keys, captions, strict=True))
    if wrong is None:
        items = [((caption, *others), (key,)) for (key, caption), others in _drawn(pairs, seed)]
    else:
        items = _with_given(pairs, wrong, sources)

    def read(key: Hashable, size: int) -> np.ndarray:
        label, image = sources[key]
        try:
            return read_image(image, size)
        except UserError as error:
            raise UserError(f"{label}: {error}") from error

    return Examples.from_items(
        (Example(texts, keys, "all", keys[0]) for texts, keys in items), read
    )


def _add(
    sources: dict[Hashable, tuple[str, ImageInput]], image: ImageInput, label: str
) -> Hashable:
    """Enter an image under a key that equal images share; return the key."""
    key: Hashable
    if isinstance(image, str | Path):
        key = str(image)
    elif isinstance(image, Image.Image):
        key = (image.mode, image.size, hashlib.sha256(image.tobytes()).hexdigest())
    elif hasattr(image, "__array__"):
        pixels = np.ascontiguousarray(image)
        key = (str(pixels.dtype), pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest())
    else:
        raise UserError(
            f"{label} is given as {type(image).__name__}; expected a path, a PIL image or a uint8 "
            "array."
        )
    sources.setdefault(key, (label, image))
    return key


def _drawn(
    pairs: Sequence[tuple[Hashable, str]], seed: int
) -> list[tuple[tuple[Hashable, str], list[str]]]:
    """Return each pair with as many captions of other images as there are for all."""
    right: dict[Hashable, set[str]] = {}
    for key, caption in pairs:
        right.setdefault(key, set()).add(caption)
    captions = {caption for _, caption in pairs}
    count = min(DRAWN, *(len(captions) - len(own) for own in right.values()), len(captions))
    if not count:
        raise UserError(
            "an image has all captions there are, so that none can be drawn that does not fit it; "
            "give images with other captions, or `wrong`."
        )
    return list(zip(pairs, Negatives(count, seed).draw_captions(pairs), strict=True))


def _with_given(
    pairs: Sequence[tuple[Hashable, str]],
    wrong: Sequence[Any],
    sources: dict[Hashable, tuple[str, ImageInput]],
) -> list[tuple[tuple[str, ...], tuple[Hashable, ...]]]:
    """Return captions and images of each item, the right ones first.

    Raises:
        UserError: the wrong candidates are too few, of two sorts, or right ones.
    """
    if isinstance(wrong, str | Path | Image.Image | Mapping) or len(wrong) != len(pairs):
        count = 1 if isinstance(wrong, str | Path | Image.Image | Mapping) else len(wrong)
        raise UserError(
            f"wrong has {count} entries and there are {len(pairs)} pairs; give for each pair a "
            "caption or an image that does not fit, or a list of them."
        )
    items, counts = [], set()
    for number, ((key, caption), entry) in enumerate(zip(pairs, wrong, strict=True)):
        label = f"wrong[{number}]"
        candidates = list(entry) if isinstance(entry, list | tuple) else [entry]
        are_images = [_is_image(candidate, label) for candidate in candidates]
        texts = [c for c, image in zip(candidates, are_images, strict=True) if not image]
        keys = [
            _add(sources, candidate, label)
            for candidate, image in zip(candidates, are_images, strict=True)
            if image
        ]
        texts = list(check_captions(texts)) if texts else []
        if caption in texts or key in keys:
            raise UserError(
                f"{label} ({shorten(caption)}) is what fits, too, so that nothing tells them "
                "apart; give another one."
            )
        counts.add((len(texts), len(keys)))
        items.append(((caption, *texts), (key, *keys)))
    if len(counts) > 1 or (min(counts)[0] > 0) == (min(counts)[1] > 0):
        found = ", ".join(f"{texts} + {keys}" for texts, keys in sorted(counts))
        raise UserError(
            f"wrong has {found} captions + images per pair; give equally many of one sort for "
            "every pair."
        )
    return items


def _is_image(candidate: Any, label: str) -> bool:
    """Return whether a wrong candidate is an image; a string may be either."""
    if not isinstance(candidate, str):
        return True
    path = Path(candidate)
    if path.suffix.lower() not in _IMAGE_FILES:
        return False
    if not path.is_file():
        raise UserError(f"{label} is '{candidate}', and there is no such file.")
    return True
