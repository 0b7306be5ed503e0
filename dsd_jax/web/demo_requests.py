"""Requests to the demo: captions ranked with maps of their words, prompts learned.

Nothing here knows of pages or servers; all of it is safe for several visitors, since what one has
learned is in their own arguments.
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import dsd_jax
from dsd_jax.config import score_spec
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.errors import UserError
from dsd_jax.few_shot.learning import learn
from dsd_jax.io.progress import Stage
from dsd_jax.matching.match_result import MatchResult, match
from dsd_jax.prompts.learned_prompts import Prompts

MAPS = {"best two": 2, "all": None, "none": 0}  # of how many captions maps are drawn
ROWS = 3  # of the UNet a call: two captions and the empty one, whatever is ranked, compiled once
MOST_FOLDERS = 100  # of prompts to choose from


@dataclass(frozen=True)
class WordMaps:
    """The maps of a caption's words: `maps` is float (words, H, W) at the image's size."""

    words: tuple[str, ...]
    maps: np.ndarray


@dataclass(frozen=True)
class RankedCaptions:
    """Captions ranked for an image.

    Attributes:
        result: with one image.
        maps: of some captions, by their index.
        prompts: what the prompts are called; "" for the frozen model.
        seconds: that it took.
        notes: warnings, in sentences.
    """

    result: MatchResult
    maps: Mapping[int, WordMaps]
    prompts: str
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lesson:
    """Prompts learned from pairs, how many there were, how long it took, and warnings."""

    prompts: Prompts
    pairs: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RankSettings:
    """Settings of a ranking.

    Attributes:
        method: a name in `dsd_jax.list_methods()`.
        timesteps: number of noise levels.
        prompts: learned here, a folder, or None for the frozen model.
        prompts_name: what they are called.
        maps: a key of `MAPS`.
    """

    method: str
    timesteps: int
    prompts: Prompts | Path | None = None
    prompts_name: str = ""
    maps: str = "best two"


@dataclass(frozen=True)
class LessonKind:
    """A kind of lesson: a recipe of `dsd_jax.learn`, the method that it is for, and its name."""

    title: str
    recipe: str
    method: str


LESSONS: Sequence[LessonKind] = (
    LessonKind("LoRA for the noise error: minutes on two cores", "adapted", "relative"),
    LessonKind("weights for the attention score: under a minute", "weights", "attention"),
)


def rank_captions(
    model: Model, image: Image.Image, captions: Sequence[str], settings: RankSettings
) -> RankedCaptions:
    """Rank captions for an image, and find where it is looked at for their words.

    Raises:
        UserError: as `dsd_jax.match` does.
    """
    if settings.maps not in MAPS:
        raise UserError(f"maps is '{settings.maps}'; expected one of {', '.join(MAPS)}.")
    began = time.monotonic()
    with _kept_warnings() as notes:
        result = match(
            model,
            [image],
            captions,
            method=settings.method,
            timesteps=settings.timesteps,
            prompts=settings.prompts,
            chunk=ROWS,
            progress=True,
        )
        shown = np.argsort(-result.scores[0], kind="stable")[: MAPS[settings.maps]]
        maps = _maps_of(model, image, captions, shown=shown.tolist(), settings=settings)
    seconds = time.monotonic() - began
    return RankedCaptions(result, maps, settings.prompts_name, seconds, tuple(notes))


def _maps_of(
    model: Model,
    image: Image.Image,
    captions: Sequence[str],
    *,
    shown: Sequence[int],
    settings: RankSettings,
) -> dict[int, WordMaps]:
    """Return the maps of the captions with the indices `shown`."""
    maps = {}
    with Stage("word maps", len(shown)) as stage:
        for index in shown:
            words, heat = dsd_jax.explain(
                model,
                image,
                captions[index],
                timesteps=settings.timesteps,
                prompts=settings.prompts,
                force=True,  # maps are no scores, whatever the prompts were learned for
            )
            maps[index] = WordMaps(tuple(words), heat)
            stage.advance()
    return maps


def learn_pairs(
    model: Model,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    wrong: Sequence[str] | None,
    *,
    kind: LessonKind,
    timesteps: int,
    steps: int | None = None,
) -> Lesson:
    """Learn prompts from pairs; arguments as those of `dsd_jax.learn`.

    Raises:
        UserError: as `dsd_jax.learn` does.
    """
    score_spec.method_named(kind.method)
    began = time.monotonic()
    with _kept_warnings() as notes:
        prompts = learn(
            model,
            images,
            captions,
            wrong=wrong,
            recipe=kind.recipe,
            method=kind.method,
            timesteps=timesteps,
            steps=steps,
            progress=True,
        )
    return Lesson(prompts, len(images), time.monotonic() - began, tuple(notes))


def prompt_folders(folder: str | Path) -> dict[str, Path]:
    """Return the folders of prompts in a folder, or itself, by names that tell them apart.

    Raises:
        UserError: it is no folder, or there are no prompts in it.
    """
    top = Path(folder)
    if not top.is_dir():
        raise UserError(f"--prompts={folder} is not a folder; give one that train has written.")
    found = sorted(path.parent for path in top.rglob("prompts.json"))[:MOST_FOLDERS]
    if not found:
        raise UserError(f"--prompts={folder} has no prompts.json in it; train and learn write one.")
    return {str(path.relative_to(top.parent)): path for path in found}


@contextmanager
def _kept_warnings() -> Iterator[list[str]]:
    """Keep warnings for the visitor, who does not see the server's terminal.

    Python has one list of filters for all threads: requests that come here run one at a time.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notes
        texts = (str(w.message) for w in caught if issubclass(w.category, UserWarning))
        notes.extend(dict.fromkeys(texts))
