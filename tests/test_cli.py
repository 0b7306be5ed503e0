"""Commands: configs, overrides, help, exit codes and messages."""

import io
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from dsd_jax.cli import RunParser, run_command
from dsd_jax.config.config_files import load_config
from dsd_jax.config.fields import describe, override
from dsd_jax.config.run_config import RunConfig
from dsd_jax.errors import DeviceError, Preempted, UserError
from dsd_jax.io.validation import Checked, List

CONFIG = """
from ml_collections import ConfigDict, config_dict


def get_config(arg="full"):
    config = ConfigDict()
    config.weights = "tiny"
    config.steps = 300 if arg == "full" else 3
    config.rate = 1e-3
    config.shuffle = True
    config.methods = ("dsd", "noise")
    config.layers = ()
    config.limit = None
    config.size = config_dict.placeholder(int)
    config.prompts = ConfigDict(dict(
        kinds=("lora",),
        lora=dict(rank=4),
    ))
    stop = config.prompts.stop = ConfigDict()
    stop.patience = 4
    config.stop = ConfigDict(stop)
    if arg == "crash":
        return undefined_name
    return config
"""


class Stop(Checked):
    patience: int = Field(ge=1, description="checks without improvement")


class LoRA(Checked):
    rank: int = Field(description="of the low-rank updates")


class Prompts(Checked):
    kinds: List[str] = Field(description="what is learned")
    lora: LoRA
    stop: Stop


class Config(Checked):
    weights: str = Field(description="folder or id")
    steps: int = Field(ge=1, description="of the optimizer")
    rate: float = Field(description="learning rate")
    shuffle: bool
    methods: List[str] = Field(description="scores to compare")
    layers: List[Any] = Field(description="all if empty")
    limit: Any = Field(description="no limit")
    size: int | None
    prompts: Prompts
    stop: Stop
    extra: float = Field(0.5, ge=0, description="which the file does not set")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def parse(config_file: Path, *arguments: str):
    parser = RunParser("train", "Learns.", "python -m dsd_jax.train --config=FILE", kind=Config)
    parser.add_argument("--prompts")
    workdir = config_file.parent / "work"
    return parser.parse_args([f"--config={config_file}", f"--workdir={workdir}", *arguments])


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("weights", "a folder=1", "a folder=1"),
        ("steps", "7", 7),
        ("rate", "1", 1.0),
        ("shuffle", "false", False),
        ("methods", "itm", ("itm",)),
        ("methods", "('itm', 'dsd')", ("itm", "dsd")),
        ("layers", "3,4", (3, 4)),
        ("limit", "5", 5),
        ("limit", "some text", "some text"),
        ("size", "64", 64),
        ("prompts.kinds", "lora,tokens", ("lora", "tokens")),
        ("prompts.lora.rank", "8", 8),
        ("extra", "2", 2.0),
    ],
)
def test_override_is_read_as_the_type_of_the_default(config_file, field, text, value):
    for arguments in ([f"--config.{field}={text}"], [f"--config.{field}", text]):
        found = parse(config_file, *arguments).config
        for name in field.split("."):
            found = getattr(found, name)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.step=3", r"no field 'step'; did you mean steps\? Fields: .*prompts.lora.rank.*"),
        ("--config.prompts.lora.rnk=3", "no field 'prompts.lora.rnk'; did you mean prompts.lora"),
        ("--config.rate.x=3", "no field 'rate.x'"),
        ("--config.prompts=3", "prompts is a group .* prompts.kinds, prompts.lora"),
        ("--config.steps=1.5", "steps=1.5: expected int; the default is 300"),
        ("--config.rate=fast", "expected float"),
        ("--config.rate=nan", "^--config.rate=nan: rate is nan, expected a finite number.$"),
        (
            "--config.stop.patience=0",
            "^--config.stop.patience=0: stop.patience is 0, expected 1",
        ),
        ("--config.extr=3", "no field 'extr'; did you mean extra"),
        ("--config.extra=-1", "--config.extra=-1: extra is -1.0, expected 0 or more"),
        ("--config.shuffle=maybe", "expected bool"),
        ("--config.size=big", "expected int"),
        ("--config.rate", "needs a value"),
        ("--config.rate --prompts=x", "needs a value"),
        ("--config.weights=caf\udce9", r"--config.weights 'caf\\udce9' is no text in UTF-8"),
        ("--steps=3", "unrecognized arguments: --steps=3; see python -m dsd_jax.train --help"),
    ],
)
def test_mistaken_argument_is_one_sentence(config_file, argument, message):
    with pytest.raises(UserError, match=message):
        parse(config_file, *argument.split())


def test_config_argument_reaches_get_config(config_file):
    assert load_config(str(config_file)).steps == 300
    assert load_config(f"{config_file}:quick").steps == 3
    with pytest.raises(UserError, match="line 23: NameError"):
        load_config(f"{config_file}:crash")
    config_file.write_text("def get_config(): pass")
    with pytest.raises(UserError, match="takes no argument, so drop ':quick'"):
        load_config(f"{config_file}:quick")


def test_config_is_locked(config_file):
    config = load_config(str(config_file))
    with pytest.raises(AttributeError):
        config.new_field = 1
    override(config, "steps", "4")
    with pytest.raises(AttributeError):
        config.prompts.new_field = 1


def test_fields_are_described_in_the_order_of_their_class(config_file):
    assert [
        line.split(maxsplit=1)
        for line in describe(Config, load_config(str(config_file)).to_dict()).splitlines()
    ] == [
        ["--config.weights=tiny", "folder or id"],
        ["--config.steps=300", "of the optimizer"],
        ["--config.rate=0.001", "learning rate"],
        ["--config.shuffle=True"],
        ["--config.methods=dsd,noise", "scores to compare"],
        ["--config.layers=()", "all if empty"],
        ["--config.limit=None", "no limit"],
        ["--config.size=None"],
        ["--config.prompts.kinds=lora", "what is learned"],
        ["--config.prompts.lora.rank=4", "of the low-rank updates"],
        ["--config.prompts.stop.patience=4", "checks without improvement"],
        ["--config.stop.patience=4", "checks without improvement"],
        ["--config.extra=0.5", "which the file does not set"],
    ]


def test_help_tells_all(config_file, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(config_file, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ("Learns.", "--workdir DIR", "--prompts", "example:", "--config.rate=0.001"):
        assert part in text


@pytest.mark.parametrize("address", ["s3://bucket/run", "gs:/bucket/run", "gs://", "http://a/b"])
def test_other_addresses_are_not_taken_for_folders(config_file, tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--workdir={address}: of addresses only gs://BUCKET/"):
        parse(config_file, f"--workdir={address}")
    assert not list(tmp_path.glob("*:"))


def test_workdir_is_created_or_refused(config_file):
    assert parse(config_file).workdir.is_dir()
    assert list(parse(config_file).workdir.iterdir()) == []
    with pytest.raises(UserError, match="cannot be written to"):
        parse(config_file, f"--workdir={config_file}")


def exit_of(main, *argv: str) -> int:
    with pytest.raises(SystemExit) as stop:
        run_command(main, argv)
    return stop.value.code


@pytest.fixture
def own_interrupts():
    """Gives the process its handler of Ctrl-C back, which a command does not need again."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_exit_codes_and_messages(capsys, monkeypatch, own_interrupts):
    def mistaken(argv):
        raise UserError(f"{argv[0]} is\nno picture.")

    def interrupted(argv):
        raise KeyboardInterrupt

    def preempted(argv):
        raise Preempted("stopped at step 3.")

    def without_device(argv):
        raise DeviceError("JAX finds no tpu device.")

    def faulty(argv):
        raise ZeroDivisionError

    assert exit_of(lambda argv: "anything") == 0
    assert capsys.readouterr().err == ""
    assert exit_of(mistaken, "a.png") == 2
    assert capsys.readouterr().err == "error: a.png is no picture.\n"
    assert exit_of(mistaken, "a\x1b[2J\x85.png") == 2
    assert capsys.readouterr().err == "error: a\\x1b[2J\\x85.png is no picture.\n"
    assert exit_of(without_device) == 75  # babysit, GKE and Slurm start it again
    assert capsys.readouterr().err == "error: JAX finds no tpu device.\n"
    assert exit_of(interrupted) == 130
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # a second Ctrl-C ends it at once
    assert capsys.readouterr().err == "stopped: interrupted by the user\n"
    assert exit_of(preempted) == 0
    assert capsys.readouterr().err == "stopped: stopped at step 3.\n"
    monkeypatch.setenv("DSD_STOPPED", "143")
    assert exit_of(preempted) == 143
    assert capsys.readouterr().err == "stopped: stopped at step 3.\n"
    for wrong in ("a", "-1", "999", "9" * 5000, ""):
        monkeypatch.setenv("DSD_STOPPED", wrong)
        assert exit_of(preempted) == 143
        assert "warning: DSD_STOPPED is '" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        run_command(faulty, [])


def test_warnings_are_one_line_and_only_within_the_command(capsys):
    before = warnings.showwarning

    def main(argv):
        warnings.simplefilter("always")
        warnings.warn("the caption\nis long", UserWarning, stacklevel=2)

    assert exit_of(main) == 0
    assert capsys.readouterr().err == "warning: the caption is long\n"
    assert warnings.showwarning is before


def test_version(capsys):
    parser = RunParser("train", "Learns.", "example", kind=RunConfig)
    assert exit_of(lambda argv: parser.parse_args(argv), "--version") == 0
    assert capsys.readouterr().out.startswith("dsd_jax 0.")


def printing(argv):
    print("caf\u00e9 \U0001f408", *argv)


def full() -> io.TextIOWrapper:
    return open("/dev/full", "w", encoding="utf-8")


def full_and_unbuffered() -> io.TextIOWrapper:
    return io.TextIOWrapper(open("/dev/full", "wb", buffering=0), "utf-8", write_through=True)


def without_reader() -> io.TextIOWrapper:
    read, write = os.pipe()
    os.close(read)
    return open(write, "w", encoding="utf-8")


@pytest.mark.parametrize(
    ("stream", "code", "message"),
    [
        (full, 2, "error: standard output can't be written to (No space left on device); make "),
        (full_and_unbuffered, 2, "error: standard output can't be written to (No space left"),
        (without_reader, 141, ""),
        (lambda: None, 0, ""),  # closed by the shell: >&-
    ],
)
@pytest.mark.parametrize("shows_help", [False, True])
def test_stdout_that_fails(monkeypatch, capsys, stream, code, message, shows_help):
    def main(argv):
        printing(argv)
        if shows_help:
            raise SystemExit(0)

    with stream() or open(os.devnull) as output:
        monkeypatch.setattr(sys, "stdout", output if output.writable() else None)
        assert exit_of(main) == code
        monkeypatch.undo()
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == bool(message)


def test_errors_of_other_files_stay_tracebacks(capsys):
    def main(argv):
        raise BrokenPipeError(32, "of a socket")

    with pytest.raises(BrokenPipeError):
        run_command(main, [])


def test_stderr_that_is_full_does_not_end_a_command(monkeypatch):
    def main(argv):
        print("progress", file=sys.stderr, flush=True)
        raise UserError("a mistake.")

    with full() as output:
        monkeypatch.setattr(sys, "stderr", output)
        assert exit_of(main) == 2


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", rb"caf\xe9 \U0001f408 \udce9"),
        ("latin-1", b"caf\xe9 \\U0001f408 \\udce9"),
        ("utf-8", "caf\u00e9 \U0001f408 \\udce9".encode()),
    ],
)
def test_letters_that_a_terminal_lacks_are_escapes(monkeypatch, encoding, expected):
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding))
    assert exit_of(printing, "\udce9") == 0
    assert output.getvalue() == expected + b"\n"


def test_deleted_folder_is_one_sentence(monkeypatch, tmp_path, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert exit_of(printing) == 2
    assert capsys.readouterr().err.startswith("error: the current folder is not there any more")


def test_what_takes_long_is_imported_where_mistakes_and_interrupts_are_handled():
    code = "import sys, dsd_jax.cli, dsd_jax.score; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "PIL", "jax", "ml_collections", "etils"} & set(done.stdout.split())


def test_help_on_a_config_loads_no_jax():
    configs = Path(__file__).parents[1] / "configs"
    code = (
        "import sys\nfrom dsd_jax import evaluate, plan, pretrain, train\n"
        "for command in (train, evaluate, plan, pretrain):\n"
        "    name = 'pretrain_tiny' if command is pretrain else 'emoji'\n"
        f"    try: command.main([f'--config={configs}/{{name}}.py', '--help'])\n"
        "    except SystemExit: pass\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("--config.seed=0") == 4
    assert not {"jax", "flax", "PIL", "scipy"} & set(done.stdout.splitlines()[-1].split())
