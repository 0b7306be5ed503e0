"""Tables of scores for a terminal: captions by images, the best caption of each image marked."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsd_jax.io.terminal import printable, shorten_path

WIDTH = 80  # columns of a terminal
CAPTION_WIDTH = 56  # at most, and where images are few
LONGEST_NAME = 32  # characters of an image's
NARROWEST = 24  # a caption's, before images go into a further block


def score_blocks(
    scores: np.ndarray, captions: Sequence[str], names: Sequence[str], *, wide: bool = False
) -> list[str]:
    """Return tables of scores (I, C), as many images beside each other as fit 80 columns.

    Args:
        scores: of every image with every caption.
        captions: C texts, one a line.
        names: of the I images, which head the columns.
        wide: make one table of all images instead, each caption in one line.
    """
    # Enough digits to tell an image's captions apart; one caption's images, if there are no others.
    digits = [score_digits(row if len(captions) > 1 else scores) for row in scores]
    columns = [column(*cells) for cells in zip(names, scores, digits, strict=True)]
    captions = [printable(" ".join(caption.split())) for caption in captions]
    longest = max(len("caption"), *(min(len(caption), CAPTION_WIDTH) for caption in captions))
    if wide:
        return [_block(captions, columns, max(map(len, ["caption", *captions])))]
    blocks, start = [], 0
    while start < len(columns):
        room = WIDTH - min(longest, NARROWEST)
        end = start
        while end < len(columns) and (room := room - _width(columns[end]) - 2) >= 0:
            end += 1
        end = max(end, start + 1)  # one image with a very long name
        taken = sum(_width(cells) + 2 for cells in columns[start:end])
        width = min(longest, max(NARROWEST, WIDTH - taken))
        blocks.append(_block(captions, columns[start:end], width))
        start = end
    return blocks


def _width(cells: Sequence[str]) -> int:
    return max(map(len, cells))


def short_names(paths: Sequence[str], most: int = LONGEST_NAME) -> list[str]:
    """Return the files' names, or the whole paths if two files have the same name.

    Args:
        paths: of files.
        most: characters of a name, of which the end is shown, unless two have the same end.
    """
    names = [Path(path).name for path in paths]
    names = names if len(set(names)) == len(names) else list(paths)
    shown = [shorten_path(name, most) for name in names]
    return shown if len(set(shown)) == len(set(names)) else names


def column(name: str, scores: np.ndarray, digits: int) -> list[str]:
    """Return an image's name and its scores, the best of several marked."""
    marks = ["*" if len(scores) > 1 and score == scores.max() else " " for score in scores]
    return [
        f"{printable(name)} ",
        *(f"{s:.{digits}f}{mark}" for s, mark in zip(scores, marks, strict=True)),
    ]


def _block(captions: Sequence[str], columns: Sequence[Sequence[str]], width: int) -> str:
    """Return the table of a few images, its captions broken into lines of `width` letters."""
    lines = []
    for number, caption in enumerate(["caption", *captions]):
        cells = [cells[number].rjust(_width(cells)) for cells in columns]
        first, *further = textwrap.wrap(caption, width, subsequent_indent="  ")
        lines.append("  ".join([first.ljust(width), *cells]).rstrip())
        lines += further
    return "\n".join(lines)


def score_digits(scores: np.ndarray) -> int:
    """Return how many digits after the point tell scores apart, 2 to 9."""
    distance = float(np.ptp(scores)) or 1.0
    return int(np.clip(2 - np.floor(np.log10(distance)), 2, 9))
