"""Names of slices, and their devices as a compiler knows them."""

import importlib.util
import sys

import pytest

from dsd_jax.errors import UserError
from dsd_jax.planning.topology import CHIPS, find_compiler, make_slice


@pytest.mark.parametrize(
    ("name", "devices", "hosts"),
    [("v5e:2x4", 8, 2), ("v5e:16x16", 256, 64), ("v5e:1x1", 1, 1), ("v5p:2x2x2", 8, 2)],
)
def test_slices(name, devices, hosts):
    where = make_slice(name)
    assert (where.name, len(where.devices), where.hosts) == (name, devices, hosts)
    assert where.chip.family == name.split(":")[0]


@pytest.mark.parametrize("chip", CHIPS.values(), ids=str)
def test_examples_of_the_table_exist(chip):
    kinds = {device.platform for device in make_slice(chip.example).devices}
    assert kinds == {"tpu"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "--topology=v5e is not FAMILY:SHAPE; expected such as v5e:2x4, v5p:2x2x2"),
        ("v5litepod-16", "not FAMILY:SHAPE"),
        ("v5e:2x", "not FAMILY:SHAPE"),
        ("h100:2x4", "the family 'h100' is unknown; expected v5e, v5p, v6e, v4"),
        ("v5e:2x4x2", "a slice of v5e has 2 sides of 1 to 16 chips, such as v5e:2x4"),
        ("v5p:2x4", "a slice of v5p has 3 sides"),
        ("v5e:32x32", "1 to 16 chips"),
        ("v5e:0x4", "1 to 16 chips"),
        ("v5e:3x3", "the compiler knows no such slice (INVALID_ARGUMENT: Topology layout"),
    ],
)
def test_mistakes(name, message):
    with pytest.raises(UserError) as error:
        make_slice(name)
    assert message in str(error.value) and str(error.value).endswith(".")


def test_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        make_slice("v5e:2x4")
    command = f"{sys.executable} -m pip install --target {sys.prefix}/planning 'libtpu>="
    assert f"libtpu, which is not installed; run {command}" in str(error.value)


def test_the_compiler_is_found_beside_the_environment(monkeypatch):
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    find_compiler()
    find_compiler()
    assert sys.path == ["elsewhere", f"{sys.prefix}/planning"]
