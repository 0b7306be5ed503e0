"""Odd values in all options of all places: what a tool gets is what was typed, or one sentence."""

import random
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.mutations.mutate import count, generator

ROOT = Path(__file__).parents[2]
COUNT = count(12)
OPTIONS = {
    "tpu": "name zone project type slices version retries wait",
    "gke": "name image type topology slices gpu gpus nodes retries grace account",
    "slurm": "nodes gpus name time sbatch",
    "local": "procs devices",
}
USUAL = {
    "tpu": "--name pod --zone us-x1-a --type v6e-8 --wait 0 --retries 2",
    "gke": "--name run-1 --image i:1 --type v6e-16",
}
ACTIONS = {"tpu": "create setup run babysit logs delete", "gke": "apply logs delete"}
ODD = [
    "", "a", "true", "null", "yes", "on", "no", "1e3", "08", "0", "-1", "1", "2", "16", "9" * 25,
    "1.5", "0x10", "a[$(touch PWNED)]", "$(touch PWNED)", "`touch PWNED`", "é", "\U0001f408",
    "caf\udce9", "a\nb", "a\tb", "\x1b[2J", "\x01", "\x7f", "\u0085", "\u2028", "\ufeff", "a b",
    "'", '"', "it's", "\\", "a\\", "*", "~", "-x", "--x", "--", "=", "a=b", "--a=b", "%s%n", "#",
    "!", "&", "x" * 300, "v6e-8", "v4-8", "v5p-64", "4x4", "2x2x2", "9999x9999", "us-x1-a",
    "24:00:00", "UNLIMITED", "{}", "[]", ": ", "- a", "|", ">", "@", "nvidia-l4", "r/i:1",
]  # fmt: skip
TOOLS = {
    "gcloud": 'case " $* " in *" describe "*) echo "$STATE" ;; esac',
    "kubectl": 'if [[ "$1" == apply ]]; then cat; fi',
    "sbatch": 'for a in "$@"; do case "$a" in --wrap=*) sh -c "${a#--wrap=}" ;; esac; done',
    "srun": "printf '%s\\0' \"$@\"",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with tools that show what they are asked for."""
    folder = tmp_path_factory.mktemp("tools")
    for name, script in TOOLS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def mutated(rng: random.Random, place: str) -> tuple[list[str], list[str]]:
    """Arguments of the launcher, and the words of the command at their end."""
    arguments = USUAL.get(place, "").split()
    for _ in range(rng.choice((0, 1, 1, 2))):
        option, value = f"--{rng.choice(OPTIONS[place].split())}", rng.choice(ODD)
        arguments += [f"{option}={value}"] if rng.random() < 0.4 else [option, value]
    action = [rng.choice(ACTIONS[place].split())] if place in ACTIONS else []
    words = ["python", *rng.choices(ODD, k=rng.randrange(4))]
    if action not in ([], ["run"], ["babysit"], ["apply"]):
        words = []
    dry = ["--dry-run"] if place == "local" else []
    return [*dry, place, *action, *arguments, *(["--", *words] if words else [])], words


def words_that_arrive(place: str, output: bytes) -> list[str]:
    if place == "slurm":
        return output.decode(errors="surrogateescape").split("\0")[:-1]
    (hosts,) = yaml.safe_load(output)["spec"]["replicatedJobs"]
    (container,) = hosts["template"]["spec"]["template"]["spec"]["containers"]
    return [re.sub(r"\$\$", "$", word) for word in container["command"]]


@pytest.mark.parametrize("place", OPTIONS)
def test_odd_values(folder, place, tried):
    rng = generator(place)
    codes = set()
    for _ in range(COUNT):
        arguments, words = mutated(rng, place)
        environment = {
            "PATH": f"{folder}:/usr/bin:/bin",
            "LC_ALL": rng.choice(("C", "C.UTF-8")),
            "TMPDIR": str(folder),
            "STATE": rng.choice(("ACTIVE", "FAILED", "", "\x1b[2J")),
        }
        done = subprocess.run(
            ["bash", ROOT / "launch" / "run.sh", *arguments],
            cwd=folder, env=environment, capture_output=True, timeout=30,
        )  # fmt: skip
        codes.add(done.returncode)
        tried.add(refused=done.returncode == 2)
        error = done.stderr.decode(errors="replace")
        assert done.returncode in ((0, 1, 2) if place == "tpu" else (0, 2)), (arguments, error)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]|: line \d", error), (arguments, error)
        if done.returncode == 2:
            assert error.startswith("run.sh: ") and error.count("\n") == 1, (arguments, error)
        elif place == "slurm" or "apply" in arguments:
            arrived = words_that_arrive(place, done.stdout)
            assert arrived[-len(words) :] == words, arguments
    assert codes >= {0, 2} and not (folder / "PWNED").exists()
