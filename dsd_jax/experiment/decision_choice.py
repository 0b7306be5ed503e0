"""Choice of the decisions that a report shows, with their images and the maps of their words."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from dsd_jax import explain
from dsd_jax.benchmarks.splits import Split
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.errors import UserError
from dsd_jax.experiment.clip_baseline import NAME as CLIP
from dsd_jax.io.images import OWN_SIZE
from dsd_jax.matching.explanation import is_stop_word
from dsd_jax.report import Decision, WordMap
from dsd_jax.statistics.results import Series

MAX_SIDE = 320  # pixels of an image in a report
SHOWN = 6  # right and wrong decisions each that a report shows
MAP_SECONDS = 10.0  # after the first decision's maps, which compile, until none gets any more
MAP_TIMESTEPS = 4
WORDS = 4  # of a candidate whose maps are shown
_PLACES_AND_SIZES = (
    " left right above below under over behind front beside next near big small large "
)


def pick_decisions(split: Split, series: Series, scores: np.ndarray) -> list[Decision]:
    """Return the most confident wrong and right decisions, each against the best wrong candidate.

    Kinds take turns, so that none fills the report.

    Args:
        split: whose items were scored.
        series: that the scores are of.
        scores: (n, P, J), the matching candidate first.
    """
    scores = scores[:, :, 0] if scores.shape[1] > 1 else scores[:, 0]
    best_wrong = 1 + scores[:, 1:].argmax(axis=1)
    margins = scores[:, 0] - scores[:, 1:].max(axis=1)
    rows = [*most_confident(-margins, split.kinds, margins <= 0)]
    rows += most_confident(margins, split.kinds, margins > 0)
    return [_decision(split, series, scores[row], row, int(best_wrong[row])) for row in rows]


def most_confident(confidence: np.ndarray, kinds: Sequence[str], among: np.ndarray) -> list[int]:
    """Return the indices of up to `SHOWN` items, of each kind in turn the most confident.

    Args:
        confidence: (n,).
        kinds: n of them.
        among: (n,) bool, the items to choose from.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = [int(row) for row in order if among[row]]
    ranks: dict[str, int] = {}
    turns = []
    for row in ranked:
        ranks[kinds[row]] = ranks.get(kinds[row], -1) + 1
        turns.append(ranks[kinds[row]])
    chosen = [row for _, row in sorted(zip(turns, ranked, strict=True), key=lambda pair: pair[0])]
    return chosen[:SHOWN]


def _decision(split: Split, series: Series, scores: np.ndarray, row: int, wrong: int) -> Decision:
    """Return the decision on an item with its images, at their own shape."""
    index, examples = split.indices[row], split.examples
    keys, captions = examples.images[index], examples.captions[index]
    images_differ = len(keys) > 1
    positive = _shrunk(examples.read(keys[0], OWN_SIZE))
    negative = _shrunk(examples.read(keys[wrong], OWN_SIZE)) if images_differ else positive
    return Decision(
        caption=captions[0],
        positive=positive,
        negative=negative,
        positive_score=float(scores[0]),
        negative_score=float(scores[wrong]),
        method=series.method,
        prompts=series.prompts,
        kind=examples.kinds[index],
        split=series.split,
        other_caption=None if images_differ else captions[wrong],
    )


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """Return an image with no side longer than `MAX_SIDE`, of the same shape."""
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(image)


def with_maps(
    model: Model,
    decisions: Sequence[Decision],
    prompts: Mapping[str, Any],
    seconds: float = MAP_SECONDS,
) -> list[Decision]:
    """Return the decisions with the maps of their words, wrong ones and right ones in turn.

    Args:
        model: that decided.
        decisions: from `pick_decisions`.
        prompts: a prompts pytree by label; decisions under others, and a CLIP's, get no maps.
        seconds: after the first decision's maps, which compile, until those that are left get none.
    """
    mapped, compiled = dict(enumerate(decisions)), 0.0
    for index in _in_turns(decisions):
        if compiled and time.monotonic() - compiled > seconds:
            break
        decision = decisions[index]
        given = prompts.get(decision.prompts) if decision.prompts else {}
        if decision.method != CLIP and given is not None:
            mapped[index] = _with_maps(model, decision, given)
            compiled = compiled or time.monotonic()
    return list(mapped.values())


def _in_turns(decisions: Sequence[Decision]) -> Iterator[int]:
    """Yield the indices of the decisions, the first wrong one, the first right one and so on."""
    groups: dict[tuple[str, bool], int] = {}
    turns = []
    for index, decision in enumerate(decisions):
        group = decision.split, decision.right
        groups[group] = groups.get(group, -1) + 1
        turns.append((groups[group], index))
    yield from (index for _, index in sorted(turns))


def _with_maps(model: Model, decision: Decision, prompts: Any) -> Decision:
    other = decision.caption if decision.other_caption is None else decision.other_caption
    return replace(
        decision,
        positive_maps=_word_maps(model, decision.positive, decision.caption, prompts),
        negative_maps=_word_maps(model, decision.negative, other, prompts),
    )


def _word_maps(model: Model, pixels: np.ndarray, caption: str, prompts: Any) -> list[WordMap]:
    """Return maps of the first words that say something; none where the caption has no words."""
    from dsd_jax.matching.plot_heatmaps import Scale, overlay  # matplotlib: half a second

    try:
        words, maps = explain(model, pixels, caption, timesteps=MAP_TIMESTEPS, prompts=prompts)
    except UserError:  # nothing in the caption is a word to the model
        return []
    named = [i for i, word in enumerate(words) if _names_a_thing(word)][:WORDS]
    # What a pixel gives to a word, as a multiple of the word's mean: one scale for all words.
    heats = [maps[i] / max(float(maps[i].mean()), 1e-12) for i in named]
    scale = Scale("", 0.0, max((float(heat.max()) for heat in heats), default=1.0))
    image, pairs = Image.fromarray(pixels), zip(named, heats, strict=True)
    return [WordMap(words[i], overlay(image, heat, scale)) for i, heat in pairs]


def _names_a_thing(word: str) -> bool:
    """Return whether a word names a thing or what it is like, whose map says more than others'."""
    return not is_stop_word(word) and f" {word.lower()} " not in _PLACES_AND_SIZES
