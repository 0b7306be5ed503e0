"""Decisions of a model that are shown with their images, and where it looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dsd_jax.report.result_rows import ZERO_SHOT


class WordMap(NamedTuple):
    """An image with the map of a word over it, uint8 (height, width, 3)."""

    word: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Decision:
    """A choice between two images for a caption, or two captions for an image, to be shown.

    Where captions are the candidates, both images are the same, and `other_caption` is the one that
    does not fit.

    Attributes:
        caption: that fits `positive`.
        positive: uint8 (height, width, 3), the image that fits the caption.
        negative: likewise, the one that does not.
        positive_score: of the candidate that fits.
        negative_score: of the best one that does not.
        method: that scored them.
        prompts: their label; None for zero-shot.
        kind: of the item.
        split: that it is of.
        other_caption: None where images are the candidates.
        positive_maps: of the words of the candidate that fits.
        negative_maps: of the words of the one that does not.
    """

    caption: str
    positive: np.ndarray
    negative: np.ndarray
    positive_score: float
    negative_score: float
    method: str
    prompts: str | None
    kind: str
    split: str
    other_caption: str | None = None
    positive_maps: Sequence[WordMap] = ()
    negative_maps: Sequence[WordMap] = ()

    @property
    def margin(self) -> float:
        """By how much the candidate that fits has the higher score."""
        return self.positive_score - self.negative_score

    @property
    def right(self) -> bool:
        """Return whether the candidate that fits has the higher score; a tie is not right."""
        return self.margin > 0

    @property
    def row(self) -> str:
        """The row of the table that the decision is of."""
        return f"{self.method}, {self.prompts or ZERO_SHOT}"
