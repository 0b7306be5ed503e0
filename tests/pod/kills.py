"""Kills a run at random moments, resumes it, and compares what it learns with an undisturbed run.

    python -m tests.pod.kills --kills 20 [--folder DIR]

DIR may be a gs:// address. Each run is killed a few times, half of them soon after a save began,
and then left to end. Exit code 1 if any of them learned anything else, to the last bit.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from etils import epath
from safetensors.numpy import load

from dsd_jax.cli import Parser, run_command
from dsd_jax.errors import UserError

KILLS_OF_A_RUN = 4
STEPS_AHEAD = (2, 8)  # how far a run gets before it is killed, in steps
SAVE_DELAY, STEP_DELAY = 0.12, 0.3  # seconds after the line that says that it has got there


def main(argv: list[str]) -> None:
    parser = Parser("kills", __doc__.splitlines()[0], "python -m tests.pod.kills --kills 20")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=epath.Path)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    folder = flags.folder or epath.Path(tempfile.mkdtemp())
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--folder={folder} is not empty; name a new one.")
    if not kill_runs(folder, flags.kills, np.random.default_rng(flags.seed)):
        sys.exit(1)


def kill_runs(folder: epath.Path, total: int, rng: np.random.Generator) -> bool:
    """Kill runs `total` times; whether all of them learned the same as an undisturbed one."""
    with running(folder / "undisturbed") as lines:
        print(f"undisturbed: {sum(line.startswith('saving') for line in lines)} saves", flush=True)
    expected, equal, number, killed = prompts(folder / "undisturbed"), True, 0, 0
    while killed < total:
        number += 1
        place = folder / f"run-{number}"
        for _ in range(min(KILLS_OF_A_RUN, total - killed)):
            told = kill_once(place, rng)
            if told is None:  # it ended first
                break
            killed += 1
            print(f"kill {killed} of {total}: run {number}, {told}", flush=True)
        with running(place) as lines:
            start = next(line for line in lines if line.startswith("resumed"))
            list(lines)
        found = prompts(place)
        same = found.keys() == expected.keys() and all(
            np.array_equal(found[name], expected[name]) for name in expected
        )
        print(f"run {number}, {start}, ended: {'bit-equal' if same else 'DIFFERENT'}", flush=True)
        equal = equal and same
    print(f"{killed} of {total} kills: {'bit-equal' if equal else 'DIFFERENT'}", flush=True)
    return equal


def kill_once(place: epath.Path, rng: np.random.Generator) -> str | None:
    """Start or resume the run in `place` and kill it; how far it got, or None if it ended first."""
    ahead, in_save = int(rng.integers(*STEPS_AHEAD)), bool(rng.integers(2))
    delay = rng.uniform(0, SAVE_DELAY if in_save else STEP_DELAY)
    start, reached = 0, 0
    with running(place) as lines:
        for line in lines:
            what, at = line.rsplit(maxsplit=1)
            if what == "resumed at":
                start = int(at)
            elif what == ("saving" if in_save else "step") and int(at) >= start + ahead:
                reached = int(at)
                time.sleep(delay)
                break
        else:
            return None
    left = unfinished(place / "checkpoints")
    moment = f"mid-save (checkpoint {left} unfinished)" if left else "between saves"
    return f"resumed at {start}, reached {reached}, {moment}"


@contextmanager
def running(place: epath.Path) -> Iterator[Iterator[str]]:
    """Yields the lines of a run in `place`, which is killed if it is still running afterwards."""
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads would fill up
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.pod.telling_host", os.fspath(place)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # most of a short life is compiling
        },
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    told = (line.strip() for line in child.stdout)
    try:
        yield (line for line in told if line.startswith(("resumed", "saving", "step")))
    finally:
        child.kill()
        child.communicate()
    if child.returncode not in (0, -9):
        errors.seek(0)
        raise RuntimeError(f"a run in {place} failed:\n{errors.read()}")
    errors.close()


def unfinished(checkpoints: epath.Path) -> str:
    """The name of a checkpoint that was being written, or nothing."""
    for step in checkpoints.iterdir() if checkpoints.exists() else ():
        in_bucket = os.fspath(step).startswith("gs://") and step.name.isdecimal()
        if ".orbax-checkpoint-tmp" in step.name or (
            in_bucket and not (step / "commit_success.txt").exists()
        ):
            return step.name.partition(".")[0]
    return ""


def prompts(place: epath.Path) -> dict[str, np.ndarray]:
    return load((place / "prompts" / "prompts.safetensors").read_bytes())


if __name__ == "__main__":
    run_command(main)
