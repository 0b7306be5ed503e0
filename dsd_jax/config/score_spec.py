"""Specs of scores: a method, the timesteps that it averages over, and how it prunes candidates.

    noise              the config's number of timesteps
    noise@100          a number of its own
    noise@10>5@50      all candidates at 10 timesteps, the best 5 of them at 50
    attention/compat   as the authors' code averages, over 16 items

Pruning is Diffusion Classifier's (arXiv 2303.16203, algorithm 2), for every method.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dsd_jax.errors import UserError

TRAINED_TIMESTEPS = 1000
COMPAT = "/compat"
_FORM = re.compile(r"(?P<method>[^@/>]+)(@(?P<stages>\d+(>\d+@\d+)*))?(?P<compat>/compat)?")


@dataclass(frozen=True)
class Method:
    """A matching method: which outputs of the UNet its score is made of.

    `dsd_jax.matching.score_functions` computes it.

    Attributes:
        title: for tables, in a few words.
        meaning: in plain words, for those who do not know the method.
        attention: whether the zero-shot score has the mean attention score in it.
        error: whether the score has a term made of prediction errors in it.
        uncond: whether the empty caption's row is needed.
        norm: of the prediction error, where it is not the 2-norm.
    """

    title: str
    meaning: str
    attention: bool = False
    error: bool = True
    uncond: bool = False
    norm: str | None = None


METHODS: Mapping[str, Method] = {
    "attention": Method(
        "cross-attention score (the paper, without bias)",
        "How strongly the parts of the image answer to the words of the caption in the model's "
        "cross-attention: the paper's score without its second term.",
        attention=True,
        error=False,
    ),
    "noise": Method(
        "noise error (Diffusion Classifier)",
        "How well the model finds the noise that was added to the image, told the caption: a "
        "caption that fits helps.",
    ),
    "noise-l1": Method(
        "absolute noise error (Diffusion Classifier's l1)",
        "As noise, with absolute errors.",
        norm="l1",
    ),
    "noise-huber": Method(
        "Huber's noise error (Diffusion Classifier's huber)",
        "As noise, with Huber's errors: squared where small, absolute where large.",
        norm="huber",
    ),
    "itm": Method(
        "noise error, less that of the empty caption (DiffusionITM)",
        "How much better the model finds the noise with the caption than with an empty one, which "
        "takes out what is hard about the image itself.",
        uncond=True,
    ),
    "relative": Method(
        "noise error, as a fraction of the empty caption's",
        "As itm, as a share of the error with the empty caption, so that noisy and clean timesteps "
        "count alike.",
        uncond=True,
    ),
    "dsd": Method(
        "attention score and bias (the paper)",
        "The paper's whole score: attention, and how much better the model finds the noise with "
        "the caption than with an empty one.",
        attention=True,
        uncond=True,
    ),
}


def method_named(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name not in METHODS:
        raise UserError(f"method '{name}' is unknown; expected one of {', '.join(METHODS)}.")
    return METHODS[name]


def timesteps(count: int) -> np.ndarray:
    """Return about `count` timesteps, ascending, spread as the authors do (`METHOD`, pipe: step 3).

    Their rule strides [10, 990) by `int(1000 / count)`. Up to 30 that gives `count` of them, beyond
    it may be more or fewer: 49 for 50, 55 for 53, 490 for 400, 980 for more than 500.
    `warn_of_count` says so.

    Raises:
        UserError: `count` is not in 1..1000.
    """
    if not 1 <= count <= 1000:
        raise UserError(f"timesteps is {count}; expected a number of timesteps from 1 to 1000.")
    return np.sort(999 - np.arange(10, 990, 1000 // count)).astype(np.int32)


def warn_of_count(count: int) -> None:
    """Warn if `timesteps(count)` are not `count`."""
    scored = len(timesteps(count))
    if scored != count:
        warnings.warn(
            f"{count} timesteps are asked for, {scored} are scored: the authors' rule takes every "
            f"{TRAINED_TIMESTEPS // count}th from 10 to 990.",
            stacklevel=3,
        )


@dataclass(frozen=True)
class ScoreSpec:
    """A row of a table before anything is learned.

    Attributes:
        label: as the config has it.
        method: a name in `METHODS`.
        stages: (candidates that are left, timesteps) of each round; None is all of them.
        compat: whether attention is averaged over batches of items, as the authors' code does.
    """

    label: str
    method: str
    stages: tuple[tuple[int | None, int], ...]
    compat: bool = False

    def timesteps(self, stage: int = 0) -> np.ndarray:
        """Return the timesteps of a round, ascending."""
        return timesteps(self.stages[stage][1])

    def new_timesteps(self, stage: int) -> np.ndarray:
        """Return the timesteps of a round that no earlier round has."""
        earlier = [self.timesteps(before) for before in range(stage)]
        return np.setdiff1d(self.timesteps(stage), np.concatenate([np.empty(0, int), *earlier]))

    def passes(self, images: int, captions: int) -> int:
        """Return the rows of the UNet per item: its candidates and, if needed, the empty caption's.

        Args:
            images: P, images per item.
            captions: J, captions per item. Pruned is what there are several of.
        """
        empty = self.compat or method_named(self.method).uncond
        total = 0
        for stage, (keep, _) in enumerate(self.stages):
            shape = [min(keep or count, count) for count in (images, captions)]
            total += len(self.new_timesteps(stage)) * (shape[0] * shape[1] + empty * shape[0])
        return total

    @property
    def is_plain(self) -> bool:
        """Return whether it is one round of the method as it is, for which prompts are learned."""
        return len(self.stages) == 1 and not self.compat


def parse(label: str, timesteps: int) -> ScoreSpec:
    """Return the spec that `label` describes, with `timesteps` where it names no number.

    Raises:
        UserError: it is not of the form that this file describes, or its numbers can't be.
    """
    match = _FORM.fullmatch(label)
    if not match:
        raise UserError(
            f"method '{label}' is not understood; expected NAME, NAME@TIMESTEPS or "
            "NAME@TIMESTEPS>CANDIDATES@TIMESTEPS, such as noise@10>5@50."
        )
    method = method_named(match["method"])
    numbers = re.findall(r"(?:(\d+)@)?(\d+)", match["stages"] or str(timesteps))
    stages = tuple((int(keep) if keep else None, int(count)) for keep, count in numbers)
    spec = ScoreSpec(label, match["method"], stages, bool(match["compat"]))
    if spec.compat and not method.attention:
        raise UserError(f"method '{label}': only methods with an attention score have /compat.")
    _check_stages(spec)
    return spec


def _check_stages(spec: ScoreSpec) -> None:
    counts = [len(spec.timesteps(stage)) for stage in range(len(spec.stages))]
    if any(count <= before for before, count in pairwise(counts)):
        raise UserError(
            f"method '{spec.label}': every round needs more timesteps than the one before, and "
            f"these have {', '.join(map(str, counts))}."
        )
    kept = [keep or 0 for keep, _ in spec.stages[1:]]
    if any(keep < 1 for keep in kept) or kept != sorted(set(kept), reverse=True):
        raise UserError(
            f"method '{spec.label}': every round keeps fewer candidates than the one before, "
            "and at least one."
        )


def parse_all(labels: Sequence[str], timesteps: int) -> list[ScoreSpec]:
    """Return the specs of several labels; raise `UserError` where a label occurs twice."""
    for label in labels:
        if list(labels).count(label) > 1:
            raise UserError(f"methods: '{label}' is there twice; drop one.")
    return [parse(label, timesteps) for label in labels]
