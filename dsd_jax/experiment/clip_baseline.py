"""The CLIP baseline on a benchmark: zero-shot, and fine-tuned on the shots of the prompts."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.benchmarks.encoded_items import distinct_rows
from dsd_jax.benchmarks.splits import ShotDraw, Split, load_shots_split
from dsd_jax.benchmarks.table_rows import RowKey
from dsd_jax.clip.clip_model import Clip
from dsd_jax.clip.fine_tuning import TunedClip, fine_tune
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.distributed import processes
from dsd_jax.experiment.setup import Experiment
from dsd_jax.experiment.sweep import shot_draws
from dsd_jax.io.progress import Stage
from dsd_jax.io.terminal import say
from dsd_jax.models.params import weights_digest
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions

NAME = "clip"
READ_TOGETHER = 256  # images that are in memory at a time


class ClipShots(NamedTuple):
    """The shots that a CLIP is fine-tuned on.

    Attributes:
        pixels: (k, P, S, S, 3) uint8.
        captions: k tuples of J captions.
        clusters: k of them; shots of one cluster are not independent of each other.
    """

    pixels: np.ndarray
    captions: list[tuple[str, ...]]
    clusters: list[Hashable]


def clip_sweep(experiment: Experiment) -> dict[str, list[TunedClip]]:
    """Return {"tuned-256": a fine-tuned CLIP per seed, and how it went}.

    They learn from the shots that the prompts are learned from. It is empty where the config names
    no CLIP.
    """
    config, clip = experiment.config, experiment.clip
    if clip is None:
        return {}
    digest = weights_digest(clip.params)
    tuned: dict[str, list[TunedClip]] = {}
    for draw in shot_draws(experiment):
        shots = read_clip_shots(clip, experiment.benchmark, draw)
        name = f"clip-{draw.count}-{draw.seed}"
        identity = {
            "clip": config.clip,
            "clip_digest": digest,
            "clip_settings": clip.settings(),
            "recipe": config.tune.model_dump(mode="json"),
            "data": config.data.model_dump(mode="json"),
            "shots": list(draw),
        }
        with Checkpoints(experiment.folder / "checkpoints" / name, identity) as checkpoints:
            fitted = fine_tune(
                clip,
                shots.pixels,
                shots.captions,
                config.tune,
                draw.seed,
                clusters=shots.clusters,
                options=LoopOptions(
                    name,
                    checkpoints,
                    progress=experiment.progress,
                    title=f"fine-tuning CLIP on {draw.count}, seed {draw.seed}",
                ),
            )
        if experiment.progress and fitted.verdict:
            say(f"CLIP, tuned-{draw.count}, seed {draw.seed}: {fitted.verdict}")
        tuned.setdefault(f"tuned-{draw.count}", []).append(fitted)
    return tuned


def read_clip_shots(clip: Clip, benchmark: Benchmark, draw: ShotDraw) -> ClipShots:
    """Read the drawn items, the same ones that `encode_shots` encodes."""
    examples = load_shots_split(benchmark, draw.split)
    indices = draw.indices(examples.kinds)
    keys = [key for index in indices for key in examples.images[index]]
    pixels = examples.read_images(keys, clip.image_size)
    return ClipShots(
        pixels.reshape(len(indices), -1, *pixels.shape[1:]),
        [examples.captions[index] for index in indices],
        [examples.clusters[index] for index in indices],
    )


def clip_scores(
    clip: Clip, tuned: Mapping[str, Sequence[Clip]], split: Split, *, progress: bool = False
) -> dict[RowKey, np.ndarray]:
    """Return {row: scores (n, P, J) float32} of a CLIP and of those tuned from it, on all hosts.

    Args:
        clip: zero-shot.
        tuned: by label, a CLIP per seed.
        split: whose items are scored.
        progress: whether to show how far it is.
    """
    clips = {RowKey(NAME): clip}
    for label, of_seeds in tuned.items():
        clips |= {RowKey(NAME, label, seed): clip for seed, clip in enumerate(of_seeds)}
    indices = [split.indices[i] for i in processes.local_range(split.count)]
    size = max(1, READ_TOGETHER // split.shape[0])
    blocks = [indices[start : start + size] for start in range(0, len(indices), size)]
    scores = []
    with Stage(f"scoring {split.name} by CLIP", len(blocks), shown=progress) as stage:
        for block in blocks:
            scores.append(_block_scores(clips, split.examples, block))
            stage.advance()
    local = {key: np.concatenate([block[key] for block in scores]) for key in clips}
    return processes.gather_each(local, split.count)


def _block_scores(
    clips: Mapping[RowKey, Clip], examples: Examples, indices: Sequence[int]
) -> dict[RowKey, np.ndarray]:
    """Return every CLIP's scores (n, P, J) of some items, whose images are read once."""
    keys, image_rows = distinct_rows([key for i in indices for key in examples.images[i]])
    captions, caption_rows = distinct_rows([text for i in indices for text in examples.captions[i]])
    size = next(iter(clips.values())).image_size
    pixels = examples.read_images(keys, size)
    scores = {}
    for key, clip in clips.items():
        images = np.asarray(clip.embed_images(pixels))[image_rows]
        texts = np.asarray(clip.embed_texts(captions))[caption_rows]
        images, texts = (x.reshape(len(indices), -1, x.shape[-1]) for x in (images, texts))
        scores[key] = clip.logit_scale * np.einsum("nPE,nJE->nPJ", images, texts)
    return scores
