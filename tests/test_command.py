"""Commands: configs, overrides, help, exit codes and messages."""

import warnings
from pathlib import Path

import pytest

from dsd_jax.command import RunParser, run_command
from dsd_jax.config_help import describe
from dsd_jax.configuration import load_config, override
from dsd_jax.errors import Preempted, UserError

CONFIG = """
from ml_collections import ConfigDict, config_dict


def get_config(arg="full"):
    config = ConfigDict()
    config.weights = "tiny"  # folder or id
    config.steps = 300 if arg == "full" else 3  # of the optimiser
    config.rate = 1e-3  # learning rate
    config.shuffle = True
    config.methods = ("dsd", "noise")  # scores to compare
    config.layers = ()  # all if empty
    config.limit = None  # no limit
    config.size = config_dict.placeholder(int)
    config.prompts = ConfigDict(dict(
        kinds=("lora",),  # what is learned
        lora=dict(rank=4),  # of the low-rank updates
    ))
    stop = config.prompts.stop = ConfigDict()
    stop.patience = 4  # looks without improvement
    other = config.stop = ConfigDict(stop)
    other.patience = 2
    if arg == "crash":
        return undefined_name
    return config
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def parse(config_file: Path, *arguments: str):
    parser = RunParser("train", "Learns.", "python -m dsd_jax.train --config=FILE")
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
    ],
)
def test_override_is_read_as_the_type_of_the_default(config_file, field, text, value):
    for arguments in ([f"--config.{field}={text}"], [f"--config.{field}", text]):
        found = parse(config_file, *arguments).config
        for name in field.split("."):
            found = found[name]
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
        ("--config.shuffle=maybe", "expected bool"),
        ("--config.size=big", "expected int"),
        ("--config.rate", "needs a value"),
        ("--config.rate --prompts=x", "needs a value"),
        ("--steps=3", "unrecognized arguments: --steps=3; see python -m dsd_jax.train --help"),
    ],
)
def test_mistaken_argument_is_one_sentence(config_file, argument, message):
    with pytest.raises(UserError, match=message):
        parse(config_file, *argument.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no get_config"),
        ("def get_config():\n    return {}", "returned dict, not an ml_collections.ConfigDict"),
        ("x = 1\ndef get_config(:\n", "line 2: "),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("import no_such_module", "line 1: ModuleNotFoundError"),
    ],
)
def test_faulty_config_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "faulty.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(str(path))


def test_config_path_that_is_no_file(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="missing.py does not exist"):
        load_config(f"{tmp_path}/missing.py:arg")
    with pytest.raises(UserError, match="is a folder"):
        load_config(str(tmp_path))
    with pytest.raises(UserError, match="not a Python file"):
        load_config(f"{tmp_path}/notes.txt")


def test_config_argument_reaches_get_config(config_file):
    assert load_config(str(config_file)).steps == 300
    assert load_config(f"{config_file}:quick").steps == 3
    with pytest.raises(UserError, match="line 24: NameError"):
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


def test_fields_are_described_as_in_the_file(config_file):
    assert [line.split(maxsplit=1) for line in describe(str(config_file)).splitlines()] == [
        ["--config.weights=tiny", "folder or id"],
        ["--config.steps=300", "of the optimiser"],
        ["--config.rate=0.001", "learning rate"],
        ["--config.shuffle=True"],
        ["--config.methods=dsd,noise", "scores to compare"],
        ["--config.layers=()", "all if empty"],
        ["--config.limit=None", "no limit"],
        ["--config.size=None"],
        ["--config.prompts.kinds=lora", "what is learned"],
        ["--config.prompts.lora.rank=4", "of the low-rank updates"],
        ["--config.prompts.stop.patience=4", "looks without improvement"],
        ["--config.stop.patience=2", "looks without improvement"],
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


def test_exit_codes_and_messages(capsys, monkeypatch):
    def mistaken(argv):
        raise UserError(f"{argv[0]} is\nno picture.")

    def interrupted(argv):
        raise KeyboardInterrupt

    def preempted(argv):
        raise Preempted("stopped at step 3.")

    def faulty(argv):
        raise ZeroDivisionError

    assert exit_of(lambda argv: "anything") == 0
    assert capsys.readouterr().err == ""
    assert exit_of(mistaken, "a.png") == 2
    assert capsys.readouterr().err == "error: a.png is no picture.\n"
    assert exit_of(interrupted) == 130
    assert capsys.readouterr().err == "stopped: interrupted by the user\n"
    assert exit_of(preempted) == 0
    assert capsys.readouterr().err == "stopped: stopped at step 3.\n"
    monkeypatch.setenv("DSD_STOPPED", "143")
    assert exit_of(preempted) == 143
    assert capsys.readouterr().err == "stopped: stopped at step 3.\n"
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
    parser = RunParser("train", "Learns.", "example")
    assert exit_of(lambda argv: parser.parse_args(argv), "--version") == 0
    assert capsys.readouterr().out.startswith("dsd_jax 0.")
