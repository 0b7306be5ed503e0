"""`few_shot_host` that saves often and tells what it does: python -m tests.pod.telling_host DIR."""

import time

from dsd_jax.cli import run_command
from dsd_jax.few_shot.batches import BatchSampler
from dsd_jax.training.checkpoints import Checkpoints
from tests.pod import few_shot_host

PAUSE, SAVE_SECONDS = 0.05, 0.25  # so that about half of the time goes into saving


class TellingCheckpoints(Checkpoints):
    """A line on stdout before anything is done."""

    def restore(self, like):
        found = super().restore(like)
        print("resumed at", found[0] if found else 0, flush=True)
        return found

    def save(self, step, state, **about):
        print("saving", step, flush=True)
        super().save(step, state, **about)


def main(argv: list[str]) -> None:
    original = BatchSampler.batch

    def batch(sampler, step):
        print("step", step, flush=True)
        time.sleep(PAUSE)
        return original(sampler, step)

    BatchSampler.batch = batch
    few_shot_host.SAVE_SECONDS = SAVE_SECONDS
    few_shot_host.Checkpoints = TellingCheckpoints
    few_shot_host.main(argv)


if __name__ == "__main__":
    run_command(main)
