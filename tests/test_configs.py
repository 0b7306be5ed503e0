"""Every config's tiny variant, from the command in its first lines to a report."""

import json
import re
from pathlib import Path

import pytest

from dsd_jax import evaluate, train
from dsd_jax.config.config_files import load_config, read_config
from dsd_jax.config.fields import describe
from dsd_jax.config.pretrain_config import kind_of
from dsd_jax.config.run_config import RunConfig
from dsd_jax.errors import UserError
from tests.few_shots import quick_compilation

ROOT = Path(__file__).parent.parent
COMMANDS = {"train": train.main, "evaluate": evaluate.main}
# {config: metrics and kinds of its report}
EXPECTED = {
    "comvg": ({"accuracy"}, {"subject", "verb", "object", "mean"}),
    "refcocog": ({"R@1", "R@5"}, {"mean"}),
    "vqa": ({"R@1", "R@5"}, {"mean"}),
    "winoground": ({"text", "image", "group"}, {"Object", "Relation", "mean"}),
    "classify": ({"R@1", "R@5"}, None),
    "own": ({"accuracy"}, None),
}


def commands(name: str) -> list[list[str]]:
    """The commands that a config's first lines show, as words."""
    text = re.match('"""(.*?)"""', (ROOT / f"configs/{name}.py").read_text(), re.DOTALL)[1]
    return [line.split() for line in re.findall(r"^python -m (.*)$", text, re.MULTILINE)]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, quick_compilation():
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.mark.parametrize("name", EXPECTED)
def test_tiny_variant_runs_as_its_first_lines_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    module, config, workdir = commands(name)[-1]
    assert config == f"--config=configs/{name}.py:tiny" and workdir.startswith("--workdir=runs/")
    COMMANDS[module.removeprefix("dsd_jax.")](
        [config, f"--workdir={tmp_path}", "--config.cpu_devices=-1"]
    )
    report = json.loads((tmp_path / "report.json").read_text())
    metrics, kinds = EXPECTED[name]
    assert {row["metric"] for row in report["results"]} == metrics
    assert kinds is None or {row["kind"] for row in report["results"]} == kinds
    assert {row["method"] for row in report["results"]} == set(load_config(config[9:]).methods)
    assert all(0 <= row["value"] <= 1 for row in report["results"])
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, RunConfig) for name in (*EXPECTED, "emoji", "full_size")),
        *((f"pretrain_{name}", kind_of) for name in ("tiny", "clip")),
    ],
)
def test_every_field_is_explained(name, kind):
    lines = describe(kind, load_config(f"configs/{name}.py").to_dict()).splitlines()
    assert len(lines) > 15
    for line in lines:
        _, _, comment = line.strip().partition("  ")
        assert comment.strip(), line


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("emoji.py:fulll", "emoji.py: there is no variant 'fulll', expected one of quick, full"),
        ("comvg.py:tinyy", "expected one of full, tiny; did you mean tiny?"),
        ("refcocog.py:tinyy", "did you mean tiny?"),
        ("vqa.py:Tiny", "did you mean tiny?"),
        ("own.py:quick", "there is no variant 'quick', expected one of full, tiny."),
        ("classify.py:", "there is no variant '', expected one of full, tiny."),
        ("winoground.py:sugarcrep", "did you mean sugarcrepe?"),
        ("full_size.py:sd35", "expected one of sd21, sd15, sdxl"),
        ("pretrain_tiny.py:big", "takes no argument, so drop ':big'"),
    ],
)
def test_a_misspelt_variant_is_refused_with_the_list(variant, message):
    with pytest.raises(UserError) as refused:
        load_config(f"configs/{variant}")
    assert message in str(refused.value)


@pytest.mark.parametrize("variant", ["emoji.py:full", "emoji.py:table", "full_size.py:sdxl"])
def test_every_variant_is_a_config(variant):
    """Those of `EXPECTED` run in tests; these take too long."""
    assert read_config(RunConfig, f"configs/{variant}", ()).recipes


@pytest.mark.parametrize(
    ("name", "timesteps", "shots"),
    [("comvg", 40, 0.05), ("refcocog", 10, 0.05), ("vqa", 200, 0.05)],
)
def test_published_settings(name, timesteps, shots):
    config = load_config(f"configs/{name}.py")
    learn = config.learn.authors
    assert config.timesteps == timesteps
    assert (config.data.shots_part if name == "comvg" else config.shots[0]) == shots
    assert (learn.learning_rate, learn.margin, learn.rank, learn.batch) == (1e-4, 0.1, 4, 1)
    assert (learn.loss, learn.kinds) == ("hinge", ("lora",))


def test_what_compares_all_candidates_cannot_drop_some(tmp_path):
    config = ["--config=configs/winoground.py:tiny", "--config.methods=noise@4>1@10"]
    with pytest.raises(UserError, match="'noise@4>1@10' drops candidates, but the items of all"):
        evaluate.main([*config, f"--workdir={tmp_path}", "--config.cpu_devices=-1"])


@pytest.mark.parametrize("name", EXPECTED)
def test_a_folder_is_asked_for(name, tmp_path):
    module = commands(name)[0][0].removeprefix("dsd_jax.")
    for workdir in (tmp_path, tmp_path / "new"):
        with pytest.raises(UserError, match="^--config.data.folder is not set; name the folder"):
            COMMANDS[module](
                [f"--config={name}", f"--workdir={workdir}", "--config.cpu_devices=-1"]
            )
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())  # no workdir of a run that was none
