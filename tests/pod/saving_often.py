"""`dsd_jax.train` that saves after every step: python -m tests.pod.saving_often ARGUMENTS."""

from dsd_jax import fitting, train
from dsd_jax.command import run_command

if __name__ == "__main__":
    fitting.is_time_to_save = lambda *_: True
    run_command(train.main)
