"""What is listed is what there is."""

import re
from pathlib import Path

import pytest

import dsd_jax
from dsd_jax.config.config_files import load_config
from dsd_jax.config.score_spec import METHODS
from dsd_jax.models.published_networks import UNETS

CONFIGS = Path(dsd_jax.__file__).parent / "configs"


def test_models_are_the_bundled_and_the_published_ones():
    assert dsd_jax.list_models().keys() == {"tiny", *UNETS}


def test_methods_are_those_that_score():
    assert dsd_jax.list_methods().keys() == METHODS.keys()


@pytest.mark.parametrize("name", dsd_jax.list_benchmarks())
def test_benchmarks_have_configs(name):
    file, _, variant = name.partition(":")
    assert load_config(f"{CONFIGS}/{file}.py:{variant}".rstrip(":")).data.name


def test_every_benchmark_of_the_configs_is_listed():
    names = {name.partition(":")[0] for name in dsd_jax.list_benchmarks()}
    files = {path.stem for path in CONFIGS.glob("*.py")}
    assert names == {x for x in files if "pretrain" not in x and x != "full_size"}
    variants = {name for name in dsd_jax.list_benchmarks() if name.startswith("winoground:")}
    text = (CONFIGS / "winoground.py").read_text()
    layouts = re.search(r"LAYOUTS = \((.*)\)", text)[1]
    assert variants == {f"winoground:{x}" for x in re.findall(r'"(\w+)"', layouts + '"tiny"')}


def test_lines_are_short():
    for listed in (dsd_jax.list_models(), dsd_jax.list_methods(), dsd_jax.list_benchmarks()):
        assert all(line and "\n" not in line and len(line) < 90 for line in listed.values())


def test_callers_may_change_what_they_got():
    dsd_jax.list_models().clear()
    assert dsd_jax.list_models()
