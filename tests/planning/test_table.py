"""Plans in words and numbers."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dsd_jax.planning.collectives import Collective
from dsd_jax.planning.figures import GIB, Figures, Shortage
from dsd_jax.planning.plan import Plan, Traffic, device_bytes, estimate, traffic
from dsd_jax.planning.table import decimal, format_json, format_markdown, format_table
from dsd_jax.planning.topology import make_slice

SENT = (
    Collective("all-reduce", 1, 125_000_000, 8, True),
    Collective("all-reduce", 3, 1_000_000, 8, True),
    Collective("all-gather", 12, 1_500_000, 4, False),
    Collective("all-to-all", 1, 500, None, None),
)
FIGURES = Figures(
    arguments=2 * GIB,
    outputs=GIB // 100,
    aliased=GIB // 100,
    temporaries=3 * GIB // 2,
    code=GIB // 4,
    peak=7 * GIB // 2,
    flops=4 * 10**12,
    accessed=5e10,
    collectives=SENT,
    unknown_loops=0,
)


@pytest.fixture(scope="module")
def plan():
    return Plan("train", make_slice("v5e:2x4"), 1, 16, GIB, 25_600_000_000_000, FIGURES)


@pytest.fixture(scope="module")
def large(plan):
    return plan._replace(
        batch=9, pairs=144, least=9 * plan.least, found=Shortage(20.5 * GIB, 15.75 * GIB)
    )


def test_estimate(plan, large):
    found = estimate(plan)
    assert found.flops_per_pair == 2e12 and found.least_per_pair == 1.6e12
    assert found.overhead == pytest.approx(1.25)
    assert found.seconds == pytest.approx(4e12 / (0.4 * 197e12))
    assert found.pairs_per_second == pytest.approx(16 / found.seconds)
    assert estimate(large) is None


def test_traffic_by_kind():
    assert traffic(SENT) == (
        Traffic("all-reduce", 4, 128_000_000, True),
        Traffic("all-gather", 12, 18_000_000, False),
        Traffic("all-to-all", 1, 500, None),
    )


def test_bytes_per_device():
    devices = make_slice("v5e:2x4").devices
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices)
    tree = {
        "split": jax.ShapeDtypeStruct(
            (16, 8), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(None, "fsdp"))
        ),
        "whole": jax.ShapeDtypeStruct((5,), jnp.float32),
    }
    assert device_bytes(tree) == 2 * 16 * 8 // 4 + 4 * 5


TABLE = """\
step                           train              train
slice                          v5e:2x4            v5e:2x4
devices                        8 on 2 hosts       8 on 2 hosts
peak of a device               197 TFLOP/s        197 TFLOP/s
batch per device               1                  9
pairs per step                 16                 144
least FLOPs per pair           1.6 TFLOP          1.6 TFLOP
weights per device             1.00 GiB           1.00 GiB
memory per device              3.50 of 15.75 GiB  20.50 of 15.75 GiB
fits                           yes                no
temporaries per device         1.50 GiB           –
FLOPs per device               4 TFLOP            –
FLOPs per pair                 2 TFLOP            –
FLOPs by the least             1.25               –
pairs/s at 40 % of peak        315                –
loops of unknown length        0                  –
sent per step                  146 MB             –
  all-reduce between hosts     128 MB in 4        –
  all-gather within a host     18 MB in 12        –
  all-to-all, devices unknown  500 B in 1         –
"""


def test_table(plan, large):
    assert format_table([plan, large]) == TABLE


def test_table_of_one_on_one_host(plan):
    lines = format_table([plan._replace(slice=make_slice("v6e:1x1"))]).splitlines()
    assert "devices                        1 on 1 host" in lines
    assert all(line == line.rstrip() for line in lines)


def test_markdown(plan, large):
    lines = format_markdown([plan, large]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2:] == [
        "| train | `v5e:2x4` | 8 | 1 | 1.00 GiB | 3.50 of 15.75 GiB | 2 | 1.6 | 146 MB | 315 |",
        "| train | `v5e:2x4` | 8 | 9 | 1.00 GiB | 20.50 of 15.75 GiB | – | 1.6 | – | – |",
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
    assert first["peak"] == 3.5 * GIB and first["fits"] is True
    assert first["collectives"][0] == {
        "kind": "all-reduce",
        "times": 1,
        "bytes": 125_000_000,
        "group": 8,
        "across_hosts": True,
    }
    assert first["estimate"]["utilisation"] == 0.4
    assert second["fits"] is False and second["estimate"] is None
    assert second["needed"] == 20.5 * GIB
