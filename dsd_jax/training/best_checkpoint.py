"""Which checkpoint is the best."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from dsd_jax.training.state_digest import check_seal


class Best:
    """Orbax's policy to preserve the step with the lowest metric, the newer of equals.

    Folders with a step's name that no one can prove to be a checkpoint are preserved, too.

    Orbax's own, `BestN`, keeps metrics in a file of their own, and no checkpoint can be opened
    where one of these is damaged.
    """

    def __init__(self):
        """No step has a metric yet."""
        self.metrics: dict[int, float] = {}
        self.unknown: set[int] = set()

    @property
    def lowest(self) -> float:
        """The lowest metric, infinite where no step has one."""
        return min(self.metrics.values(), default=math.inf)

    def read(self, folder: epath.Path, steps: Iterable[int]) -> None:
        """Read the metrics that steps were saved with; those that can't be read have none."""
        for step in steps:
            try:
                meta = json.loads((folder / str(step) / "meta" / "metadata").read_text())
                check_seal(meta)
                if meta["step"] != step:
                    raise ValueError("a copy of another step")
                self.add(step, meta["metric"])
            except (OSError, ValueError, LookupError):  # restoring says it, if it comes to that
                self.unknown.add(step)

    def add(self, step: int, metric: float | None) -> None:
        """Take note of a step that is saved, with its metric if it has one."""
        self.unknown.discard(step)
        if metric is not None:
            self.metrics[step] = float(metric)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether to preserve each of the checkpoints that there are."""
        steps = [one.step for one in checkpoints if one.step in self.metrics]
        best = min(steps, key=lambda step: (self.metrics[step], -step), default=None)
        return [one.step == best or one.step in self.unknown for one in checkpoints]
