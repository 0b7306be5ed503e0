"""The launch script's other places: a simulated pod, and clusters whose tools write down calls."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPACED = "--name=two words; $HOME 'quoted'"

# Writes down its arguments, one call a line, and plays a queued resource whose states are in a
# file, one per look; ssh runs the command that it is given where CODES says, or takes its code.
FAKE_GCLOUD = r"""#!/usr/bin/env bash
printf '%q ' "$@" >>"$CALLS"
echo >>"$CALLS"
case " $* " in
  *" describe "*)
    state="$(head -n 1 "$STATES")"
    sed -i 1d "$STATES"
    [[ -n "$state" ]] || exit 1
    echo "$state" ;;
  *"here --"*)
    code="$(head -n 1 "$CODES")"
    sed -i 1d "$CODES"
    exit "${code:-0}" ;;
esac
"""


class Cluster:
    """Fake gcloud and sbatch on PATH, and what was asked of them."""

    def __init__(self, folder: Path):
        self.calls, self.states, self.codes = (folder / x for x in ("calls", "states", "codes"))
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in ("gcloud", "sbatch"):
            (self.bin / tool).write_text(FAKE_GCLOUD)
            (self.bin / tool).chmod(0o755)

    def start(self, *arguments: str, states=(), codes=()) -> subprocess.CompletedProcess:
        self.calls.write_text("")
        self.states.write_text("".join(f"{state}\n" for state in states))
        self.codes.write_text("".join(f"{code}\n" for code in codes))
        names = {"CALLS": self.calls, "STATES": self.states, "CODES": self.codes}
        return subprocess.run(
            ["bash", str(ROOT / "launch" / "run.sh"), *arguments],
            env={
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "TMPDIR": str(self.bin),
                **{name: str(path) for name, path in names.items()},
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    def verbs(self) -> list[str]:
        """What was done, in a word each."""
        words = ("describe", "create", "delete", "scp", "setup", "here")
        return [next(w for w in words if w in line) for line in self.calls.read_text().splitlines()]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


PLACE = ("--name", "pod", "--zone", "us-x1-a")
COMMAND = ("--", "python", "-m", "dsd_jax.train", SPACED)


def test_create_asks_and_waits(cluster):
    done = cluster.start(
        "tpu", "create", *PLACE, "--type", "v5litepod-16", "--spot", "--project", "p",
        "--wait", "0",
        states=("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = cluster.calls.read_text().splitlines()
    assert lines[0].split() == [
        "compute", "tpus", "queued-resources", "create", "pod", "--node-id=pod",
        "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot",
        "--zone=us-x1-a", "--project=p",
    ]  # fmt: skip
    assert cluster.verbs() == ["create", *["describe"] * 3]


def test_create_that_fails_says_so(cluster):
    done = cluster.start("tpu", "create", *PLACE, "--type", "v6e-8", states=("FAILED",))
    assert done.returncode == 1 and "pod is FAILED" in done.stderr


def test_setup_copies_what_is_committed(cluster):
    done = cluster.start("tpu", "setup", *PLACE)
    assert done.returncode == 0, done.stderr
    copy, make = cluster.calls.read_text().splitlines()
    assert "scp" in copy and "pod:dsd_jax.tgz --worker=all" in copy
    assert "setup\\ --accelerator\\ tpu" in make and "--worker=all" in make


@pytest.mark.parametrize("code", [0, 2, 7])
def test_run_passes_arguments_and_exit_code_on(cluster, code, tmp_path):
    done = cluster.start("tpu", "run", *PLACE, *COMMAND, codes=(code,))
    assert done.returncode == code
    # What the worker's shell would run, with the launch script replaced by one that shows words.
    words = subprocess.run(
        ["bash", "-c", f"show() {{ printf '%s\\n' \"$@\"; }}; show {cluster.calls.read_text()}"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    remote = next(word for word in words if word.startswith("--command=")).removeprefix(
        "--command="
    )
    (tmp_path / "dsd_jax" / "launch").mkdir(parents=True)
    (tmp_path / "dsd_jax" / "launch" / "run.sh").write_text(
        'printf "%s\\n" "$DSD_CLUSTER" "$@"; exit 5'
    )
    shown = subprocess.run(
        ["bash", "-c", remote], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert shown.stdout.splitlines() == ["tpu", "here", *COMMAND]
    assert shown.returncode == 5
    assert (tmp_path / "dsd_jax" / "run.log").read_text() == shown.stdout


@pytest.mark.parametrize(
    ("states", "codes", "verbs", "code"),
    [
        (("ACTIVE",), (0,), ["describe", "scp", "setup", "here"], 0),
        # Missing at first; a mistake in the command is not tried again.
        (
            ("", "ACTIVE"),
            (2,),
            ["describe", "create", "describe", "scp", "setup", "here"],
            2,
        ),
        # Taken away while it ran.
        (
            ("ACTIVE", "SUSPENDED", "ACTIVE"),
            (255, 0),
            ["describe", "scp", "setup", "here"]
            + ["describe", "delete", "create", "describe", "scp", "setup", "here"],
            0,
        ),
        # Never works.
        (("ACTIVE",) * 3, (1, 1, 1), ["describe", "scp", "setup", "here"] * 3, 1),
    ],
)
def test_babysit(cluster, states, codes, verbs, code):
    done = cluster.start(
        "tpu", "babysit", *PLACE, "--type", "v5litepod-16", "--retries", "3",
        "--wait", "0", *COMMAND,
        states=states, codes=codes,
    )  # fmt: skip
    assert cluster.verbs() == verbs, done.stderr
    assert done.returncode == code


def test_logs_and_delete(cluster):
    assert cluster.start("tpu", "logs", *PLACE).returncode == 0
    assert "--worker=0" in cluster.calls.read_text() and "tail" in cluster.calls.read_text()
    assert cluster.start("tpu", "delete", *PLACE).returncode == 0
    assert "queued-resources delete pod --force --quiet" in cluster.calls.read_text()


def test_dry_run_prints_what_would_run_and_runs_nothing(cluster):
    done = cluster.start(
        "--dry-run", "tpu", "babysit", *PLACE, "--type", "v5litepod-16", *COMMAND
    )  # fmt: skip
    assert done.returncode == 0 and cluster.calls.read_text() == ""
    assert done.stdout.count("gcloud compute tpus") == 6
    for place in (("slurm",), ("local",), ("here",), ()):
        command = COMMAND if place else ()
        done = cluster.start("--dry-run", *place, *command)
        assert done.returncode == 0 and "dsd_jax.train" in done.stdout, done.stderr
        assert cluster.calls.read_text() == ""


def test_slurm_starts_a_process_per_gpu_and_requeues(cluster):
    done = cluster.start(
        "slurm", "--nodes", "2", "--gpus", "8", "--sbatch", "--partition=a100", *COMMAND
    )
    assert done.returncode == 0, done.stderr
    call = cluster.calls.read_text()
    for option in ("--nodes=2", "--ntasks-per-node=8", "--requeue", "--partition=a100"):
        assert f"{option} " in call
    assert "srun" in call and "two" in call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tpu", "start"), "tpu: 'start' is no action"),
        (("tpu", "run", "--zone", "z", *COMMAND), "tpu run: --name is missing"),
        (("tpu", "create", *PLACE), "tpu create: --type is missing"),
        (("tpu", "run", *PLACE), "tpu run: expected -- and a command"),
        (("tpu", "delete", *PLACE, *COMMAND), "tpu delete takes no command"),
        (("tpu", "delete", "--name"), "tpu: --name needs a value"),
        (("tpu", "delete", *PLACE, "--colour"), "tpu: unknown option '--colour'"),
        (("slurm", "--nodes", "2"), "slurm: unknown option ''; expected -- and a command"),
        (("slurm", "--cores", "2", *COMMAND), "slurm: unknown option '--cores'"),
        (("local", "--procs", "0", *COMMAND), "local: --procs is '0'; expected a number from 1"),
        (("local", "--"), "local: nothing after --"),
        (("here", "python"), "here: unknown option 'python'"),
        (("setup", "--gpu"), "setup: unknown option '--gpu'"),
    ],
)
def test_mistakes_are_one_sentence(cluster, arguments, message):
    done = cluster.start(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"run.sh: {message}") and done.stderr.count("\n") == 1
    assert cluster.calls.read_text() == ""


@pytest.mark.parametrize("place", ["local", "tpu", "slurm"])
def test_help_of_each_place(cluster, place):
    done = cluster.start(place, "--help")
    assert done.returncode == 0 and f"bash launch/run.sh {place}" in done.stdout
    assert "shellcheck" not in done.stdout


def local(*command: str, **environment: str) -> subprocess.Popen:
    """Two simulated hosts in the environment of the tests."""
    return subprocess.Popen(
        ["bash", str(ROOT / "launch/run.sh"), "local", "--procs", "2", "--", *command],
        env={**os.environ, "DSD_VENV": sys.prefix, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_local_processes_know_their_place(tmp_path):
    show = (
        "import os, sys\n"
        "print(os.environ['DSD_PROCESS'], os.environ['DSD_PROCESSES'], *sys.argv[1:])"
    )
    job = local("python", "-c", show, SPACED)
    out, error = job.communicate(timeout=60)
    assert job.returncode == 0, error
    assert sorted(out.splitlines()) == [f"[0] 0 2 {SPACED}", f"[1] 1 2 {SPACED}"]


def test_local_stops_all_if_one_fails():
    one = 'import os, sys, time; os.environ["DSD_PROCESS"] == "1" and sys.exit(3); time.sleep(60)'
    started = time.monotonic()
    job = local("python", "-c", one)
    job.communicate(timeout=50)
    assert job.returncode == 3 and time.monotonic() - started < 30


def test_local_hands_sigterm_to_all(tmp_path):
    wait = (
        "import os, signal, sys, time, pathlib\n"
        f"place = pathlib.Path({str(tmp_path)!r}) / os.environ['DSD_PROCESS']\n"
        "signal.signal(signal.SIGTERM, lambda *_: (place.write_text('told'), sys.exit(0)))\n"
        "place.write_text('ready'); time.sleep(60)"
    )
    job = local("python", "-c", wait)
    places = [tmp_path / "0", tmp_path / "1"]
    while not all(p.exists() and p.read_text() == "ready" for p in places):
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == 0
    assert [p.read_text() for p in places] == ["told", "told"]


def test_tools_that_are_missing_are_one_sentence(tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "basename", "dirname"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    for arguments in (("tpu", "logs", *PLACE), ("slurm", *COMMAND)):
        done = subprocess.run(
            ["bash", str(tmp_path / "launch" / "run.sh"), *arguments],
            env={"PATH": str(tmp_path / "bin")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and "is not on PATH" in done.stderr
