"""CLIP on a benchmark's items: zero-shot, and fine-tuned on the very shots that prompts have."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dsd_jax.benchmarks.splits import Split, draw_shots, load_examples
from dsd_jax.benchmarks.table_scores import RowKey
from dsd_jax.clip.matcher import Clip
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.distributed import processes

NAME = "clip"
READ_TOGETHER = 256  # pictures that are in memory at a time


def clip_scores(
    clip: Clip, tuned: Mapping[str, Sequence[Clip]], split: Split
) -> dict[RowKey, np.ndarray]:
    """Return {key: (n, P, J) float32} of a CLIP and of those tuned from it, on all hosts.

    Args:
        clip: zero-shot.
        tuned: by label, one per seed.
        split: whose items.
    """
    every = {RowKey(NAME): clip}
    for label, clips in tuned.items():
        every |= {RowKey(NAME, label, seed): one for seed, one in enumerate(clips)}
    here = [split.numbers[i] for i in processes.local_range(split.count)]
    scores = {key: [] for key in every}
    for numbers in _blocks(split.examples, here):
        for key, values in _block_scores(every, split.examples, numbers).items():
            scores[key].append(values)
    mine = {key: np.concatenate(values) for key, values in scores.items()}
    return processes.gather_each(mine, split.count)


def shots_for_clip(
    clip: Clip, benchmark: Benchmark, name: str, count: int, seed: int
) -> tuple[np.ndarray, list[tuple[str, ...]], list[Hashable]]:
    """Return pixels (k, P, S, S, 3), captions and clusters of the items that
    `benchmark.load_shots` draws.
    """
    examples = load_examples(benchmark, name, "shots_from").unfolded()
    numbers = draw_shots(name, examples.kinds, count, seed)
    keys = [key for number in numbers for key in examples.pictures[number]]
    pixels = examples.images(keys, clip.image_size)
    pixels = pixels.reshape(count, -1, *pixels.shape[1:])
    captions = [examples.captions[number] for number in numbers]
    return pixels, captions, [examples.clusters[number] for number in numbers]


def _blocks(examples: Examples, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """The items in blocks of few pictures."""
    size = max(1, READ_TOGETHER // len(examples.pictures[0]))
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _block_scores(
    every: Mapping[Any, Clip], examples: Examples, numbers: Sequence[int]
) -> dict[Any, np.ndarray]:
    keys = [key for number in numbers for key in examples.pictures[number]]
    captions = [text for number in numbers for text in examples.captions[number]]
    different, pictures = _different(keys)
    texts, words = _different(captions)
    size = next(iter(every.values())).image_size
    pixels = examples.images(different, size)
    return {
        key: _logits(clip, pixels, pictures, texts, words, len(numbers))
        for key, clip in every.items()
    }


def _logits(
    clip: Clip,
    pixels: np.ndarray,
    pictures: np.ndarray,
    texts: Sequence[str],
    words: np.ndarray,
    count: int,
) -> np.ndarray:
    """(n, P, J) from different pictures and captions, and which of them items have."""
    images = np.asarray(clip.embed_images(pixels))[pictures]
    states = np.asarray(clip.embed_texts(texts))[words]
    images, states = (x.reshape(count, -1, x.shape[-1]) for x in (images, states))
    return clip.logit_scale * np.einsum("nPE,nJE->nPJ", images, states)


def _different(keys: Sequence[Any]) -> tuple[list, np.ndarray]:
    """The different ones, and which of them each is."""
    places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return list(places), np.array([places[key] for key in keys])
