"""Training on a few items, for prompts and CLIP alike: gradient steps with early stopping."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax

from dsd_jax.training import early_stopping
from dsd_jax.training.early_stopping import TrainState
from dsd_jax.training.held_out_verdict import HeldOutVerdict
from dsd_jax.training.loop import CheckResult, LoopOptions, fit


class AdamWSettings(Protocol):
    """The fields of a recipe that say how params are updated."""

    steps: int
    learning_rate: float
    weight_decay: float


class FewShotRecipe(AdamWSettings, early_stopping.CheckSchedule, Protocol):
    """The fields of a recipe that `fit_few_shot` reads."""


def adamw(settings: AdamWSettings) -> optax.GradientTransformation:
    """Return AdamW with a cosine schedule; decay pulls LoRA towards the zero-shot model."""
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.steps, alpha=0.1)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=settings.weight_decay)
    )


@dataclass(frozen=True)
class FewShotTask:
    """The params to train, and how they are updated and judged.

    Attributes:
        params: before the first step, placed on the devices.
        opt_state: likewise.
        update: (params, opt_state, batch) -> (params, opt_state, loss); donates the first two.
        batch: the batch of a step.
        batch_size: items of a batch.
        zero_shot_losses: (n,) of the frozen model on the held-out items.
        held_out_losses: params -> (n,) losses on the held-out items.
        clusters: (n,) of the held-out items.
        what: is learned, in words, such as "LoRA".
    """

    params: Any
    opt_state: Any
    update: Callable[[Any, Any, Any], tuple[Any, Any, jax.Array]]
    batch: Callable[[int], Any]
    batch_size: int
    zero_shot_losses: np.ndarray
    held_out_losses: Callable[[Any], np.ndarray]
    clusters: np.ndarray
    what: str


class FewShotFit(NamedTuple):
    """The best params, or None where the frozen model stays; and how training went.

    Attributes:
        params: None where their gain on the held-out items is not significant.
        checks: {step: mean held-out loss}.
        verdict: of the held-out items.
    """

    params: Any
    checks: dict[int, float]
    verdict: HeldOutVerdict

    @property
    def kept(self) -> int:
        """The step whose params were kept; 0 is the frozen model."""
        return (self.verdict.step or 0) if self.verdict.kept else 0


def fit_few_shot(task: FewShotTask, recipe: FewShotRecipe, options: LoopOptions) -> FewShotFit:
    """Train until the held-out loss stops falling; keep the best params if they gain enough."""

    def update(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        params, opt_state, loss = task.update(state.params, state.opt_state, batch)
        return state._replace(params=params, opt_state=opt_state), {"loss": loss}

    def check(step: int, state: TrainState) -> CheckResult:
        result = early_stopping.update(state, step, task.held_out_losses(state.params), recipe)
        if options.on_check and result.metric is not None:
            options.on_check(step, result.metric)
        return result

    if options.on_check:
        options.on_check(0, float(task.zero_shot_losses.mean()))
    state = fit(
        early_stopping.start(task.params, task.opt_state, task.zero_shot_losses, recipe),
        update,
        task.batch,
        recipe.steps,
        options=options,
        check=check,
        check_every=recipe.check_every,
        batch_size=task.batch_size,
    )
    checks, verdict = early_stopping.best_if_significant(state, recipe, task.clusters, task.what)
    return FewShotFit(state.best if verdict.kept else None, checks, verdict)
