"""Plans in words and numbers."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dsd_jax.diffusion.device_memory import bytes_per_device
from dsd_jax.planning.compilation import GIB, CompiledStats, Shortage
from dsd_jax.planning.stage_plan import (
    StagePlan,
    decimal,
    format_json,
    format_markdown,
    format_table,
    largest,
)
from dsd_jax.planning.topology import make_slice

STATS = CompiledStats(
    arguments=2 * GIB,
    outputs=GIB // 100,
    aliased=GIB // 100,
    temporaries=3 * GIB // 2,
    code=GIB // 4,
    peak=7 * GIB // 2,
)


@pytest.fixture(scope="module")
def plan():
    where = make_slice("v5e:2x4")
    least, flops = 25_600_000_000_000, 32 * 10**12
    return StagePlan("train", where, "1 item", 16, 3 * GIB, GIB, flops, least, 146_000_000, STATS)


@pytest.fixture(scope="module")
def large(plan):
    return plan._replace(
        stage="held-out", size="9 items in 3 parts", compiled=Shortage(20.5 * GIB, 15.75 * GIB)
    )


def test_estimate(plan, large):
    estimate = plan.estimate
    assert estimate.flops_per_pair == 2e12 and estimate.least_per_pair == 1.6e12
    assert estimate.overhead == pytest.approx(1.25)
    assert estimate.seconds == pytest.approx(4e12 / (0.4 * 197e12))
    assert estimate.pairs_per_second == pytest.approx(16 / estimate.seconds)
    assert large.estimate is None


def test_other_networks_weights_take_room_too(plan):
    """A program that fits alone may not fit beside them."""
    assert plan.needed == 4.5 * GIB and plan.fits
    assert not plan._replace(beside=int(12.3 * GIB)).fits


def test_bytes_per_device():
    devices = make_slice("v5e:2x4").devices
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices)
    tree = {
        "split": jax.ShapeDtypeStruct(
            (16, 8), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(None, "fsdp"))
        ),
        "whole": jax.ShapeDtypeStruct((5,), jnp.float32),
    }
    assert bytes_per_device(tree) == 2 * 16 * 8 // 4 + 4 * 5


TABLE = """\
stage                   train              held-out
slice                   v5e:2x4            v5e:2x4
devices                 8 on 2 hosts       8 on 2 hosts
peak of a device        197 TFLOP/s        197 TFLOP/s
per device and call     1 item             9 items in 3 parts
pairs per call          16                 16
weights per device      3.00 GiB           3.00 GiB
memory per device       4.50 of 15.75 GiB  21.50 of 15.75 GiB
fits                    yes                no
temporaries per device  1.50 GiB           –
FLOPs per pair          2 TFLOP            –
least FLOPs per pair    1.6 TFLOP          –
FLOPs by the least      1.25               –
pairs/s at 40 % of peak 315                –
sent per call           146 MB             146 MB
"""


def test_table(plan, large):
    found = [line.split("  ") for line in format_table([plan, large]).splitlines()]
    expected = [line.split("  ") for line in TABLE.splitlines()]
    cells = [[" ".join(cell.split()) for cell in line if cell.strip()] for line in found]
    wanted = [[" ".join(cell.split()) for cell in line if cell.strip()] for line in expected]
    assert [" ".join(line) for line in cells] == [" ".join(line) for line in wanted]


def test_table_of_one_on_one_host(plan):
    lines = format_table([plan._replace(slice=make_slice("v6e:1x1"))]).splitlines()
    assert any(line.split("  ")[-1].strip() == "1 on 1 host" for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_the_largest_stage_is_named(plan, large):
    assert largest([plan]) == (
        "v5e:2x4: every stage fits; the largest is train, 4.50 of 15.75 GiB per device."
    )
    assert largest([plan, large]).startswith("v5e:2x4: held-out does not fit; the largest is held-")


def test_markdown(plan, large):
    lines = format_markdown([plan, large]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2:] == [
        "| train | v5e:2x4 | 8 on 2 hosts | 1 item | 3.00 GiB | 4.50 of 15.75 GiB "
        "| 2 TFLOP | 1.6 TFLOP | 146 MB | 315 |",
        "| held-out | v5e:2x4 | 8 on 2 hosts | 9 items in 3 parts | 3.00 GiB | 21.50 of 15.75 GiB "
        "| – | – | 146 MB | – |",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e6, "2 MB"), (3.456e9, "3.46 GB")],
)
def test_bytes_in_words(size, text):
    assert decimal(size) == text


def test_json(plan, large):
    first, second = json.loads(format_json([plan, large]))
    assert first["topology"] == "v5e:2x4" and first["hbm"] == 15.75 * GIB
    assert first["stage"] == "train" and first["fits"] is True
    assert first["peak"] == 3.5 * GIB and first["memory"] == 4.5 * GIB
    assert first["estimate"]["utilisation"] == 0.4
    assert second["fits"] is False and second["estimate"] is None
    assert second["needed"] == 20.5 * GIB and second["memory"] == 21.5 * GIB
