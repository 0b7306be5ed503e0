"""The training that all phases share: state, optimizers, the update, and the run of a phase."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsd_jax.config.pretrain_config import ClipPretrainConfig, PretrainConfig
from dsd_jax.distributed import sharding
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions, fit

# (params, batch, step) -> (gradients, float32 scalars to log)
GradientFn = Callable[[Any, Any, jax.Array], tuple[Any, dict[str, jax.Array]]]


class PhaseState(NamedTuple):
    """The state of a phase after `step` steps; `average` is a moving average of `params`."""

    params: Any
    opt_state: Any
    average: Any
    step: jax.Array


class Stage(NamedTuple):
    """A part of a phase, which lasts until `steps` steps of the phase are done.

    Attributes:
        name: shown before the progress bar and written to the log.
        update: from `make_update`.
        batch: from the number of a step to its batch, on the host.
    """

    name: str
    steps: int
    update: Callable[[PhaseState, Any], tuple[PhaseState, dict[str, jax.Array]]]
    batch: Callable[[int], Any]


def adam_with_cosine(learning_rate: float, steps: int, warmup: int) -> optax.GradientTransformation:
    """Build an Adam whose rate warms up and falls to zero as a cosine."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))


def adamw_with_cooldown(
    learning_rate: float, steps: int, cooldown: float
) -> optax.GradientTransformation:
    """Build an AdamW whose rate warms up, stays, and falls to zero over a part of the steps."""
    warmup, fall = min(300, steps // 10), round(cooldown * steps)
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, learning_rate, max(1, warmup)),
            optax.constant_schedule(learning_rate),
            optax.linear_schedule(learning_rate, 0.0, max(1, fall)),
        ],
        [warmup, steps - fall],
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=0.01)
    )


def apply(network: Any, params: Any, *inputs: Any, method: str | None = None) -> Any:
    """Run a network of `models`, or one of its methods, with its params."""
    return network.apply({"params": params}, *inputs, method=method)


def create_state(params: Any, optimizer: optax.GradientTransformation) -> PhaseState:
    """Return the state before the first step."""
    average = jax.tree.map(jnp.copy, params)  # the update donates its state: no buffer twice
    return PhaseState(params, optimizer.init(params), average, jnp.zeros((), jnp.int32))


def make_update(
    gradients: GradientFn, optimizer: optax.GradientTransformation, *, ema_decay: float = 0.999
) -> Callable[[PhaseState, Any], tuple[PhaseState, dict[str, jax.Array]]]:
    """Build the jitted (state, batch) -> (state, scalars), which donates its state.

    Args:
        gradients: computes the gradients of `params`.
        optimizer: turns them into updates.
        ema_decay: of the moving average at the end; it averages over fewer steps at the start.
    """

    def update(state: PhaseState, batch: Any) -> tuple[PhaseState, dict[str, jax.Array]]:
        grads, metrics = gradients(state.params, batch, state.step)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return PhaseState(params, opt_state, average, state.step + 1), metrics

    return jax.jit(update, donate_argnums=0)


def run_phase(
    folder: Path,
    state: PhaseState,
    stages: Sequence[Stage],
    *,
    identity: Mapping[str, Any],
    config: PretrainConfig | ClipPretrainConfig,
) -> PhaseState:
    """Train a phase, or resume it, over this host's devices.

    Args:
        folder: holds the phase's checkpoints; the log is beside it.
        state: before the first step.
        stages: run one after the other.
        identity: the config that a resumed run must share.
        config: of the run, which says how often it saves and who else looks on.

    Returns:
        The final state, on the host.
    """
    mesh = sharding.host_mesh()
    state = sharding.replicate(mesh, state)
    with Checkpoints(folder, dict(identity)) as checkpoints:
        for stage in stages:
            log = folder.parent / "metrics.jsonl"
            state = fit(
                state,
                stage.update,
                lambda step, stage=stage: sharding.shard_rows(mesh, stage.batch(step)),
                stage.steps,
                options=LoopOptions(
                    stage.name,
                    checkpoints,
                    log,
                    save_seconds=config.save_seconds,
                    tracker=config.tracker,
                    profile=config.profile,
                ),
            )
    return jax.device_get(state)
