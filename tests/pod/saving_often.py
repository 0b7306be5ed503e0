"""`dsd_jax.train` that saves after every step: python -m tests.pod.saving_often ARGUMENTS."""

from dsd_jax import train
from dsd_jax.cli import run_command
from dsd_jax.training import loop

if __name__ == "__main__":
    loop.is_time_to_save = lambda *_: True
    run_command(train.main)
