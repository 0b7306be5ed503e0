"""A host of a pod that fails: python -m tests.pod.failing_host HOW.

HOW is mistake, bug or killed, of the last host, for which the others wait; or first-killed, of the
first host, while the others compute.
"""

import os
import signal
import time

from dsd_jax.cli import run_command
from dsd_jax.distributed import processes
from dsd_jax.errors import UserError


def main(argv: list[str]) -> None:
    processes.join()
    processes.barrier("all are here")
    if argv[0] == "first-killed":
        if os.environ["DSD_PROCESS"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(100)
    if os.environ["DSD_PROCESS"] == "1":
        if argv[0] == "mistake":
            raise UserError("the folder photos is missing.")
        if argv[0] == "bug":
            raise KeyError("no such layer")
        os.kill(os.getpid(), signal.SIGKILL)
    processes.barrier("the work is done")


if __name__ == "__main__":
    run_command(main)
