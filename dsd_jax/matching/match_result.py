"""The result of matching images and captions: scores that show themselves as a ranking."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dsd_jax.diffusion.pipeline import Model
from dsd_jax.diffusion.tokenization import check_captions
from dsd_jax.errors import UserError
from dsd_jax.io.images import ImageInput, check_images, open_image
from dsd_jax.io.terminal import shows_progress
from dsd_jax.matching.match_scores import MatchSettings, match_settings, scores_with
from dsd_jax.matching.ranking import Ranking, ranking_figure, ranking_html, rankings_of
from dsd_jax.matching.score_table import score_blocks, short_names
from dsd_jax.prompts.prompt_metadata import GivenPrompts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOWN_IMAGES = 20  # of a result in a terminal; the scores hold all


@dataclass(frozen=True, repr=False, eq=False)
class MatchResult:
    """The scores of C captions for I images, shown as a ranking in a notebook or a terminal.

    Attributes:
        scores: (I, C) float32; higher is a better match. They compare the captions of an image, and
            are not probabilities; those of two methods are not comparable.
        images: I images in RGB, at their own sizes.
        captions: C captions.
        names: of the I images: their files, or "image 1" and so on.
        method: a name in `dsd_jax.list_methods()`.
        timesteps: number of noise levels that scores are averages over.
        seed: of the noise.
        model: what the model was loaded from.
    """

    scores: np.ndarray
    images: tuple[Image.Image, ...]
    captions: tuple[str, ...]
    names: tuple[str, ...]
    method: str
    timesteps: int
    seed: int
    model: str

    @property
    def best(self) -> np.ndarray:
        """The index of the caption that fits each image best, (I,); the first of equal ones."""
        return self.scores.argmax(axis=1)

    @property
    def margins(self) -> np.ndarray:
        """The lead of the best caption over the next, (I,); NaN where there is one caption."""
        if self.scores.shape[1] == 1:
            return np.full(len(self.scores), np.nan, np.float32)
        second, first = np.sort(self.scores, axis=1)[:, -2:].T
        return first - second

    def to_pandas(self) -> "pd.DataFrame":
        """Return the scores as a table: a row an image, a column a caption.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError(
                "to_pandas needs pandas, which is not installed: pip install pandas."
            ) from error
        index = pd.Index(self.names, name="image")
        return pd.DataFrame(self.scores, index, pd.Index(self.captions, name="caption"))

    def plot(self) -> "Figure":
        """Return a figure of the images, each with its captions ranked; the first of many."""
        return ranking_figure(self._title(), self._rankings())

    def _rankings(self) -> list[Ranking]:
        return rankings_of(self.scores, self.images, self.captions, self.names)

    def _title(self) -> str:
        return (
            f"{self.method} scores by {self.model}, {_count(self.timesteps, 'timestep')}, "
            f"seed {self.seed}"
        )

    def _repr_html_(self) -> str:
        return ranking_html(self._title(), self._rankings())

    def __repr__(self) -> str:
        images, captions = self.scores.shape
        best = "; * best caption of the image" if captions > 1 else ""
        shown = slice(SHOWN_IMAGES)
        blocks = score_blocks(self.scores[shown], self.captions, self.names[shown])
        if images > SHOWN_IMAGES:
            blocks.append(f"and {images - SHOWN_IMAGES} more images")
        return "\n\n".join([f"{self._title()}\n(higher fits better{best})", *blocks])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def match(
    model: Model,
    images: Sequence[ImageInput] | np.ndarray,
    captions: Sequence[str],
    *,
    method: str | None = None,
    timesteps: int | None = None,
    seed: int = 0,
    prompts: GivenPrompts = None,
    layers: Sequence[str] | str | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
    force: bool = False,
) -> MatchResult:
    """Return the scores of C captions for I images, as a ranking that shows itself.

    The numbers are those of `match_scores`.

    Args:
        model: from `dsd_jax.load`.
        images: paths, PIL images or uint8 arrays (H, W, 3).
        captions: strings.
        method: a name in `dsd_jax.list_methods()`; by default the one that the prompts were learned
            for, or "dsd".
        timesteps: number of noise levels to average over; time grows with it, memory does not. By
            default as many as the prompts were learned at, or 10.
        seed: of the noise.
        prompts: what `learn` returns, the folder that it or `train` wrote, or a pytree.
        layers: layers whose attention scores count: paths, "all", or None for the authors' choice.
        chunk: rows per device and call of the UNet; changes time and memory only.
        progress: whether to show a progress bar; by default in a terminal and in a notebook.
        force: whether to use prompts for what they were not learned for.

    Raises:
        UserError: an image cannot be read, a caption is empty, a name or number is out of range,
            or the prompts were learned for another method, timesteps, layers or params.
    """
    settings = match_settings(
        model, prompts, method, timesteps, layers=layers, seed=seed, force=force
    )
    shown = shows_progress(progress)
    return _match(model, images, captions, settings, chunk=chunk, progress=shown)


def _match(
    model: Model,
    images: Sequence[ImageInput] | np.ndarray,
    captions: Sequence[str],
    settings: MatchSettings,
    *,
    chunk: int | None,
    progress: bool,
) -> MatchResult:
    captions = check_captions(captions)
    check_images(images)
    opened = [open_image(image) for image in images]
    scores = scores_with(model, opened, captions, settings, chunk=chunk, progress=progress)
    return MatchResult(
        scores,
        tuple(opened),
        tuple(captions),
        tuple(_names(images)),
        settings.method,
        len(settings.timesteps),
        settings.seed,
        model.name,
    )


def _names(images: Sequence[ImageInput] | np.ndarray) -> list[str]:
    """Return the images' files, short where that tells them apart, or their numbers."""
    paths = [str(image) for image in images if isinstance(image, str | Path)]
    short = iter(short_names(paths))
    return [
        next(short) if isinstance(image, str | Path) else f"image {number}"
        for number, image in enumerate(images, 1)
    ]
