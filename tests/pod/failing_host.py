"""One host of a pod whose last host fails: python -m tests.pod.failing_host mistake | bug | killed.

The others wait for it meanwhile.
"""

import os
import signal

from dsd_jax import hosts
from dsd_jax.command import run_command
from dsd_jax.errors import UserError


def main(argv: list[str]) -> None:
    hosts.join()
    hosts.wait("all are here")
    if os.environ["DSD_PROCESS"] == "1":
        if argv[0] == "mistake":
            raise UserError("the folder photos is missing.")
        if argv[0] == "bug":
            raise KeyError("no such layer")
        os.kill(os.getpid(), signal.SIGKILL)
    hosts.wait("the work is done")


if __name__ == "__main__":
    run_command(main)
