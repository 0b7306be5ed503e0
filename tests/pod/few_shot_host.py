"""One host of a pod that learns from a few items: python -m tests.pod.few_shot_host DIR [STOP].

With STOP, the last host gets SIGTERM at that step. What was learned goes to DIR/prompts.
"""

import os
import signal

import jax
from etils import epath

from dsd_jax.cli import run_command
from dsd_jax.distributed import processes
from dsd_jax.distributed.devices import check_devices
from dsd_jax.distributed.sharding import simulate_cpu_devices
from dsd_jax.few_shot import prompt_training
from dsd_jax.few_shot.batches import BatchSampler
from dsd_jax.few_shot.support_set import cache_frozen_outputs
from dsd_jax.prompts.prompt_files import write_prompts
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions
from tests.few_shots import NOISES, TIMESTEPS, few_model, recipe, telling_items

RATE = 0.002  # that of configs/emoji.py: Adam blows up the noise of tiny gradients as rates do
STEPS = 40
SAVE_SECONDS = 300.0


def main(argv: list[str]) -> None:
    folder, stop = epath.Path(argv[0]), int(argv[1]) if len(argv) > 1 else None
    simulate_cpu_devices(1)
    processes.join()
    check_devices()
    model = few_model()
    shots = cache_frozen_outputs(model, telling_items(model), TIMESTEPS, 0, noises=NOISES)
    settings = recipe(model, learning_rate=RATE, steps=STEPS, check_every=20, patience=9)
    original = BatchSampler.batch

    def batch(sampler, step):
        if step == stop and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(sampler, step)

    BatchSampler.batch = batch
    with Checkpoints(folder / "checkpoints", {}) as checkpoints:
        options = LoopOptions("few", checkpoints, save_seconds=SAVE_SECONDS)
        found = prompt_training.train_prompts(model, shots, settings, 0, options=options)
    if processes.is_main():
        write_prompts(folder / "prompts", found.prompts, {"held_out": found.checks})


if __name__ == "__main__":
    run_command(main)
