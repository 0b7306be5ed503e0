"""What the documents say works: files they name exist, snippets and commands run."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dsd_jax.prompts.prompt_files import write_prompts
from tests.documents import DOCUMENTS, ROOT, Block, all_blocks, blocks

pytestmark = [
    pytest.mark.usefixtures("quickly_compiled"),
    pytest.mark.filterwarnings("default"),  # readers meet warnings, too: of sixteen pairs, say
]
LANGUAGES = {"", "python", "bash", "bibtex", "{toctree}", "{eval-rst}", "{include}"}
PROMPTS = "runs/emoji/prompts/adapted-256/seed-0"
# Where a command's heavy work begins: what comes before has checked all arguments and the config.
WORK = {
    "convert": "dsd_jax.conversion.conversion_source.find_source",
    "demo": "dsd_jax.weights.model_loading.load",
    "evaluate": "dsd_jax.experiment.setup.open_run",
    "plan": "dsd_jax.planning.topology.find_compiler",
    "pretrain": "dsd_jax.distributed.sharding.simulate_cpu_devices",
    "score": "dsd_jax.weights.model_loading.load",
    "train": "dsd_jax.experiment.setup.open_run",
}
NUMBER = re.compile(r"\d+\.\d ± \d+\.\d")


class WorkBegins(Exception):
    """A command has checked its arguments and begins to work."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A folder with the repository's files, as readers have it, and those that they bring."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("dsd_jax", "configs", "docs", "launch", "tests", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    Image.new("RGB", (64, 64)).save(folder / "photo.jpg")
    learned_for = {"recipe": {"methods": ["relative"], "kinds": ["lora"]}}
    write_prompts(folder / PROMPTS, {}, learned_for)
    return folder


@pytest.fixture(autouse=True)
def at_readers_desk(workspace, monkeypatch):
    """Tests run in the workspace, and leave nothing in the caches of whoever runs them."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("HOME", str(workspace / "home"))
    monkeypatch.delenv("DSD_CACHE", raising=False)


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_documents_name_files_that_exist(document):
    text = (ROOT / document).read_text("utf-8")
    links = [(ROOT / document).parent / x for x in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)]
    links += [
        ROOT / x for x in re.findall(r"`((?:dsd_jax|configs|launch|tests|docs)/[\w./-]*\w)`", text)
    ]
    missing = [str(x) for x in links if ":/" not in str(x) and not x.exists()]
    assert missing == []


def test_blocks_are_of_known_languages():
    """A block in another language would be one that no test here runs."""
    assert {
        b.place: b.language for b in all_blocks() if b.language.split(" ")[0] not in LANGUAGES
    } == {}


def test_most_blocks_are_run():
    """A reason not to run a block is an exception for what takes a network, hardware or minutes."""
    runnable = [block.place for block in all_blocks("python") if not block.not_run]
    assert len(runnable) > len([b for b in all_blocks("python") if b.not_run])


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "python")])
def test_python_blocks_run_in_order(document):
    names: dict = {}
    for block in blocks(document, "python"):
        code = compile("\n" * block.line + block.code, block.document, "exec")
        if block.not_run:
            check_names(block)
        else:
            exec(code, names)


def check_names(block: Block) -> None:
    """Check that what a block takes from `dsd_jax` is there."""
    package = importlib.import_module("dsd_jax")
    for name in re.findall(r"dsd_jax\.(\w+(?:\.\w+)?)\(", block.code):
        owner, _, member = name.partition(".")
        assert hasattr(getattr(package, owner), member or "__doc__"), f"{block.place}: {name}"


@pytest.mark.parametrize("block", all_blocks("bash"), ids=lambda block: block.place)
def test_commands_run_or_are_understood(block, monkeypatch):
    checked = subprocess.run(["bash", "-n", "-c", block.code], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    for words in block.commands:
        check_command(words, block, monkeypatch)


def check_command(words: list[str], block: Block, monkeypatch) -> None:
    """Run a command, or as much of it as needs neither a network nor minutes."""
    if words[0] == "bash":
        check_launch(words, block, monkeypatch)
    elif words[0] == "dsd-jax":
        run_program(words[1:], block, monkeypatch)
    elif re.fullmatch(r"(.*/)?python", words[0]):
        assert words[1] == "-m", f"{block.place}: {words}"
        if words[2].startswith("dsd_jax.") and words[2].count(".") == 1:
            run_program([words[2].removeprefix("dsd_jax."), *words[3:]], block, monkeypatch)
        else:
            assert importlib.util.find_spec(words[2]), f"{block.place}: {words[2]}"
    else:
        assert block.not_run, f"{block.place}: {words[0]} is not known here; say why it is not run"


def check_launch(words: list[str], block: Block, monkeypatch) -> None:
    """Check that a script of `launch/` takes its arguments; what it would run is checked, too."""
    script, *arguments = words[1:]
    assert Path(script).is_file(), f"{block.place}: {script}"
    if script == "launch/test.sh":
        paths = [argument for argument in arguments if argument.startswith("tests")]
        assert all(Path(path).exists() for path in paths), f"{block.place}: {paths}"
    elif script == "launch/run.sh" and arguments[:1] != ["setup"]:
        command = ["bash", script, "--dry-run", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.place}: {done.stderr}"
    if "--" in arguments:
        inner = arguments[arguments.index("--") + 1 :]
        check_command(inner, block, monkeypatch)


def run_program(words: list[str], block: Block, monkeypatch) -> None:
    """Run a command of dsd_jax in this process, or until its work begins."""
    if not block.not_run or not words or words[0].startswith("-"):
        run_to_end(words)
        return
    name, *arguments = words
    module, _, function = WORK[name].rpartition(".")
    arguments = [re.sub(r"^--workdir=.*", "--workdir=runs/parsed", x) for x in arguments]

    def stop(*_args, **_options):
        raise WorkBegins

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module(module), function, stop)
        with pytest.raises(WorkBegins):
            importlib.import_module(f"dsd_jax.{name}").main(arguments)


def run_to_end(words: list[str]) -> None:
    """Run `dsd-jax WORDS`, in this process unless it sets up devices, which JAX does once."""
    if words[0] in ("train", "evaluate"):
        command = [sys.executable, "-m", "dsd_jax", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    main = importlib.import_module("dsd_jax.__main__").main
    try:
        main(words)
    except SystemExit as end:
        assert not end.code, words


def test_readme_is_short_and_has_the_example():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) < 200
    assert any("example.png" in line for line in lines[:10])  # people look before they read
    (example,) = blocks("README.md", "python")
    assert len(example.code.splitlines()) <= 12


def test_numbers_of_the_readme_are_those_of_the_main_job():
    """The README's small table is made of rows of the whole one."""
    rows = (ROOT / "docs" / "main-job.md").read_text("utf-8")
    for line in (ROOT / "README.md").read_text("utf-8").splitlines():
        if method := re.match(r"\| (`\w+`) \|", line):
            whole = [row for row in rows.splitlines() if row.startswith(f"| {method[1]} |")]
            means = {NUMBER.findall(row)[-1] for row in whole}
            found = NUMBER.findall(line)
            assert len(found) == 2 and set(found) <= means, line
