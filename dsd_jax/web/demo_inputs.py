"""Uploads, captions and pairs that a visitor gives to the demo, checked against limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dsd_jax.errors import UserError
from dsd_jax.io.images import open_content
from dsd_jax.io.local_files import read_regular_file
from dsd_jax.io.terminal import shorten

MOST_MEGABYTES = 10  # of an upload
MOST_CAPTIONS = 12  # to rank at a time
MOST_LETTERS = 500  # of a caption; models read 77 tokens
LEAST_PAIRS, MOST_PAIRS = 4, 64  # to learn from
MOST_TIMESTEPS = 100
LARGEST_SIDE = 1024  # pixels of an image as it is kept; models see at most as many


def read_upload(upload: Mapping[str, Any] | None) -> Image.Image:
    """Return an uploaded image, RGB, at most `LARGEST_SIDE` pixels a side.

    Args:
        upload: its `path` on this machine and its `orig_name`, as Gradio gives them; None where
            nothing is uploaded.

    Raises:
        UserError: there is none, or it is too large or no image.
    """
    if not upload or not upload.get("path"):
        raise UserError("There is no picture; drop one into the box, or choose an example.")
    path = Path(upload["path"])
    name = f"The file {shorten(upload.get('orig_name') or path.name)}"
    if not path.is_file():
        raise UserError(f"{name} is deleted, as uploads are after an hour; give it again.")
    if path.stat().st_size > MOST_MEGABYTES * 1_000_000:
        raise UserError(f"{name} is larger than {MOST_MEGABYTES} MB; give a smaller one.")
    image = open_content(read_regular_file(path), name)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return image


def read_uploads(uploads: Sequence[Mapping[str, Any]] | None) -> list[Image.Image]:
    """Return uploaded images, as `read_upload` does.

    Raises:
        UserError: they are too few or too many, or one is too large or no image.
    """
    count = len(uploads or ())
    if not LEAST_PAIRS <= count <= MOST_PAIRS:
        raise UserError(
            f"There are {_count(count, 'picture')}; give {LEAST_PAIRS} to {MOST_PAIRS} to learn "
            "from."
        )
    return [read_upload(upload.get("image")) for upload in uploads or ()]


def lines_of(text: str | None) -> list[str]:
    """Return the lines of a text that are not empty, stripped."""
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def read_captions(text: str | None) -> list[str]:
    """Return the captions to rank, one a line, none twice.

    Raises:
        UserError: there is none, or they are too many or too long.
    """
    captions = list(dict.fromkeys(lines_of(text)))
    if not captions:
        raise UserError("There is no caption; write at least one, better two, each on its line.")
    if len(captions) > MOST_CAPTIONS:
        raise UserError(
            f"There are {len(captions)} captions; {MOST_CAPTIONS} are ranked at a time, so drop "
            "some."
        )
    _check_lengths(captions)
    return captions


def read_pair_captions(text: str | None, pictures: int, kind: str) -> list[str]:
    """Return the captions of pictures, one a line in their order.

    Args:
        text: of the captions.
        pictures: how many there are.
        kind: what the captions are called in messages, such as "captions that fit".

    Raises:
        UserError: they are not as many as the pictures, or too long.
    """
    captions = lines_of(text)
    if len(captions) != pictures:
        raise UserError(
            f"There are {_count(pictures, 'picture')} and {len(captions)} {kind}; write one line "
            "for each picture, in the same order."
        )
    _check_lengths(captions)
    return captions


def check_timesteps(timesteps: Any) -> int:
    """Return the number of timesteps; raises `UserError` if it is out of range."""
    if isinstance(timesteps, bool) or not isinstance(timesteps, int | float):
        timesteps = 0
    if not 1 <= timesteps <= MOST_TIMESTEPS:
        raise UserError(f"The number of timesteps should be from 1 to {MOST_TIMESTEPS}.")
    return int(timesteps)


def pairing(pictures: int, captions: int, wrong: int) -> str:
    """Return a sentence on how many pictures and captions there are, and what is missing."""
    text = f"{_count(pictures, 'picture')}, {_count(captions, 'caption')}"
    if wrong:
        text += f", {wrong} that do not fit"
    if not pictures and not captions:
        return f"Give {LEAST_PAIRS} to {MOST_PAIRS} pictures; 16 or more teach it something."
    if pictures != captions:
        return f"{text}: write one line for each picture."
    if wrong not in (0, pictures):
        return f"{text}: write one that does not fit for each picture, or none."
    if not LEAST_PAIRS <= pictures <= MOST_PAIRS:
        return f"{text}: give {LEAST_PAIRS} to {MOST_PAIRS} pictures."
    return f"{text}: ready."


def _check_lengths(captions: Sequence[str]) -> None:
    for caption in captions:
        if len(caption) > MOST_LETTERS:
            raise UserError(
                f"The caption {shorten(caption)} has {len(caption)} letters; give at most "
                f"{MOST_LETTERS}."
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
