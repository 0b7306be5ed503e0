"""The launch script's clusters but GKE, with tools that write down calls."""

import shutil
import subprocess
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
    [[ -n "$state" ]] || { echo "ERROR: NOT_FOUND: Resource was not found" >&2; exit 1; }
    [[ "$state" != ERROR* ]] || { echo "$state" >&2; exit 1; }
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

    def start(
        self, *arguments: str, states=(), codes=(), environment=()
    ) -> subprocess.CompletedProcess:
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
                **dict(environment),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    def verbs(self) -> list[str]:
        """What was done, in a word each."""
        words = ("describe", "create", "delete", "scp", "setup", "here")
        return [next(w for w in words if w in line) for line in self.calls.read_text().splitlines()]


def words(call: str) -> list[str]:
    """The words of a call that was written down."""
    show = f"printf '%s\\0' {call}"
    shown = subprocess.run(["bash", "-c", show], capture_output=True, text=True, check=True)
    return shown.stdout.split("\0")[:-1]


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


def test_several_slices_are_nodes_of_one_resource(cluster):
    done = cluster.start(
        "tpu", "create", *PLACE, "--type", "v6e-16", "--slices", "2", states=("ACTIVE",)
    )
    assert done.returncode == 0, done.stderr
    assert " --node-count=2 --node-prefix=pod " in cluster.calls.read_text()
    assert "--node-id" not in cluster.calls.read_text()


def test_create_that_fails_says_so(cluster):
    done = cluster.start("tpu", "create", *PLACE, "--type", "v6e-8", states=("FAILED",))
    assert done.returncode == 1 and "pod is FAILED" in done.stderr


def test_setup_copies_what_is_committed(cluster):
    done = cluster.start("tpu", "setup", *PLACE)
    assert done.returncode == 0, done.stderr
    copy, make = cluster.calls.read_text().splitlines()
    assert "queued-resources scp" in copy and "pod:dsd_jax.tgz --node=all --worker=all" in copy
    assert "queued-resources ssh pod --node=all --worker=all" in make
    line = words(make)[-2].removeprefix("--command=")
    # Without a Python that is new enough it gets one first.
    assert line.index("uv python install 3.12") < line.index("run.sh setup --accelerator tpu")


@pytest.mark.parametrize("code", [0, 2, 7])
def test_run_passes_arguments_and_exit_code_on(cluster, code, tmp_path):
    done = cluster.start("tpu", "run", *PLACE, *COMMAND, codes=(code,))
    assert done.returncode == code
    remote = next(x for x in words(cluster.calls.read_text()) if x.startswith("--command="))
    remote = remote.removeprefix("--command=")
    # What the worker's shell would run, with the launch script replaced by one that shows words.
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
    assert (
        "--node=0 --worker=0" in cluster.calls.read_text() and "tail" in cluster.calls.read_text()
    )
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
    done = cluster.start("--dry-run", "setup", "--accelerator", "cuda")
    assert done.returncode == 0 and "-m venv" in done.stdout and "'jax[cuda]'" in done.stdout
    refused = cluster.start("--dry-run", "setup", "--accelerator", "abacus")
    assert refused.returncode == 2 and "accelerator 'abacus' is unknown" in refused.stderr
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
    ("code", "turns", "again"),
    [(0, 0, False), (2, 0, False), (143, 99, True), (75, 0, True), (75, 10, False)],
)
def test_slurm_job_asks_for_another_turn_when_stopped(cluster, code, turns, again):
    """The job's own script, with an srun that writes down its words and ends as told."""
    cluster.start("slurm", *COMMAND)
    wrap = next(x for x in words(cluster.calls.read_text()) if x.startswith("--wrap="))
    for tool in ("srun", "scontrol"):
        shutil.copy(cluster.bin / "sbatch", cluster.bin / tool)
    cluster.calls.write_text("")
    cluster.codes.write_text(f"{code}\n")
    names = {"CALLS": cluster.calls, "STATES": cluster.states, "CODES": cluster.codes}
    slurm = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": str(turns)}
    done = subprocess.run(
        ["sh", "-c", wrap.removeprefix("--wrap=")],
        env={"PATH": f"{cluster.bin}:/usr/bin:/bin", **slurm, **names},
    )
    first, *rest = cluster.calls.read_text().splitlines()
    assert done.returncode == code and SPACED in words(first)
    assert rest == (["requeue 17 "] if again else [])


ODD = ["--workdir=runs/é", "it's", "a\tb\nc", '$HOME `x` \\ "', "", "\U0001f408 &;|<>*?~!"]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_any_shell_reads_the_words_back(cluster, tmp_path, locale):
    """That of a Slurm job, of a TPU's worker, and the one into which a dry run is copied."""
    show = tmp_path / "show"
    show.mkdir()
    for tool in ("srun", "bash", "env"):  # in place of what would run: writes its words down
        (show / tool).write_text(f"#!{shutil.which('bash')}\nprintf '%s\\0' \"$@\"")
        (show / tool).chmod(0o755)

    def read(line: str) -> list[str]:
        shell = shutil.which("dash") or "/bin/sh"
        done = subprocess.run(
            [shell, "-c", line], env={"PATH": f"{show}:/usr/bin:/bin"}, cwd=tmp_path,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.split("\0")[:-1]

    command = ("--", "python", *ODD)
    cluster.start("slurm", *command, environment={"LC_ALL": locale})
    wrap = next(x for x in words(cluster.calls.read_text()) if x.startswith("--wrap="))
    assert read(wrap.removeprefix("--wrap="))[-len(command) :] == list(command)
    shown = cluster.start("--dry-run", "slurm", *command, environment={"LC_ALL": locale}).stdout
    assert read(read(shown)[-1].removeprefix("--wrap="))[-len(command) :] == list(command)
    shown = cluster.start("--dry-run", "local", *command, environment={"LC_ALL": locale}).stdout
    assert read(shown)[-len(ODD) :] == ODD


def test_options_with_an_equals_sign(cluster):
    done = cluster.start("slurm", "--nodes=2", "--gpus=8", "--sbatch=--partition=a100", *COMMAND)
    assert done.returncode == 0, done.stderr
    for option in ("--nodes=2", "--ntasks-per-node=8", "--partition=a100"):
        assert f"{option} " in cluster.calls.read_text()
    shown = cluster.start("--dry-run", "local", "--procs=3", "--devices=2", *COMMAND)
    assert shown.stdout.count("JAX_NUM_CPU_DEVICES=2") == 3
    done = cluster.start(
        "tpu",
        "create",
        "--name=pod",
        "--zone=us-x1-a",
        "--type=v6e-8",
        "--spot",
        states=("ACTIVE",),
    )
    assert done.returncode == 0, done.stderr
    assert "--accelerator-type=v6e-8" in cluster.calls.read_text()


LOGGED_OUT = "ERROR: (gcloud.x) There was a problem refreshing your current auth tokens"


def test_babysit_ends_where_nobody_is_logged_in(cluster):
    done = cluster.start(
        "tpu", "babysit", *PLACE, "--type", "v6e-8", "--wait", "0", *COMMAND,
        states=(LOGGED_OUT,) * 3,
    )  # fmt: skip
    assert done.returncode == 2 and cluster.verbs() == ["describe"]
    assert done.stderr.splitlines() == [
        LOGGED_OUT,
        "run.sh: tpu: gcloud is not logged in, or not allowed to; it says why above.",
    ]


def test_babysit_takes_a_slice_for_missing_only_if_gcloud_says_so(cluster):
    done = cluster.start(
        "tpu", "babysit", *PLACE, "--type", "v6e-8", "--wait", "0", "--retries", "2", *COMMAND,
        states=("ERROR: 503 unavailable", "ACTIVE"), codes=(0,),
    )  # fmt: skip
    assert done.returncode == 0 and "MISSING" not in done.stderr
    assert cluster.verbs() == ["describe", "describe", "scp", "setup", "here"]
    assert "gcloud could not look at pod" in done.stderr


def test_create_does_not_wait_for_a_state_that_it_does_not_know(cluster):
    done = cluster.start("tpu", "create", *PLACE, "--type", "v6e-8", states=("\x1b[2J",))
    assert done.returncode == 1
    assert done.stderr == "run.sh: tpu: pod is ?[2J; it will not become ACTIVE.\n"


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
        (("local", "--devices=1e9", *COMMAND), "local: --devices is '1e9'; expected a number"),
        (("slurm", "--gpus", "08", *COMMAND), "slurm: --gpus is '08'; expected a number from 1"),
        (("slurm", "--nodes", "9" * 20, *COMMAND), f"slurm: --nodes is '{'9' * 20}'; expected a"),
        (("slurm", "--name", "a b", *COMMAND), "slurm: --name is 'a b'; expected at most 100"),
        (("slurm", "--name=a\nb", *COMMAND), "slurm: --name is 'a?b'; expected at most 100"),
        (("slurm", "--time=\x07", *COMMAND), "slurm: --time is '?'; expected a time as sbatch"),
        (("slurm", "--sbatch", "x\x1b", *COMMAND), "slurm: --sbatch is 'x?'; expected an option"),
        (("slurm", "--\x1b[2J", "x", *COMMAND), "slurm: unknown option '--?[2J'"),
        (("tpu", "delete", *PLACE, "--retries=08"), "tpu: --retries is '08'; expected a number"),
        (("tpu", "delete", *PLACE, "--wait=1e9"), "tpu: --wait is '1e9'; expected a number of"),
        (("tpu", "delete", *PLACE, "--slices=a[0]"), "tpu: --slices is 'a[0]'; expected a numb"),
        (("tpu", "delete", "--name=x", "--zone=a b"), "tpu: --zone is 'a b'; expected a zone"),
        (("tpu", "create", *PLACE, "--type", "v6e-1e9"), "tpu: --type is 'v6e-1e9'; expected"),
        (("here", "python"), "here: unknown option 'python'"),
        (("setup", "--gpu"), "setup: unknown option '--gpu'"),
    ],
)
def test_mistakes_are_one_sentence(cluster, arguments, message):
    done = cluster.start(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"run.sh: {message}") and done.stderr.count("\n") == 1
    assert cluster.calls.read_text() == ""


@pytest.mark.parametrize("place", ["local", "tpu", "gke", "slurm"])
def test_help_of_each_place(cluster, place):
    done = cluster.start(place, "--help")
    assert done.returncode == 0 and f"bash launch/run.sh {place}" in done.stdout
    assert "shellcheck" not in done.stdout


def test_tools_that_are_missing_are_one_sentence(tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "basename", "dirname"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    missing = (("tpu", "logs", *PLACE), ("gke", "logs", "--name", "a"), ("slurm", *COMMAND))
    for arguments in missing:
        done = subprocess.run(
            ["bash", str(tmp_path / "launch" / "run.sh"), *arguments],
            env={"PATH": str(tmp_path / "bin")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and "is not on PATH" in done.stderr
