"""A CLIP is tuned alike on one device and on several, which wait for each other twice a step."""

import re

import numpy as np
import pytest

from tests.few_shots import quick_compilation
from tests.pod.clip_host import tune
from tests.pod.hosts import run

COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-[a-z]+)(-start)?\("
)


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    with quick_compilation():
        return tune(fsdp=1)


@pytest.mark.parametrize(
    ("procs", "devices", "fsdp"),
    [(1, 2, 1), (1, 2, 2), (2, 2, 1)],
    ids=["two-devices", "shared-weights", "two-hosts"],
)
def test_the_same_everywhere(alone, tmp_path, procs, devices, fsdp):
    done = run(procs, devices, "tests.pod.clip_host", tmp_path, fsdp)
    assert f"{procs * devices} devices" in done.stdout + done.stderr
    found = dict(np.load(tmp_path / "found.npz"))
    assert found.keys() == alone.keys()
    # A softmax does not depend on its keys' bias: Adam makes steps of the rounding of its gradient.
    for name in [name for name in alone if "['k_proj']['bias']" not in name]:
        np.testing.assert_allclose(found[name], alone[name], rtol=0, atol=1e-5, err_msg=name)
    if fsdp > 1:
        return  # XLA then gathers weights where they are needed
    # One gather, and one sum that waits for it: no two hold threads of simulated devices at once.
    chain = collectives((tmp_path / "step.txt").read_text())
    assert [kind for kind, _ in chain] == ["all-gather", "all-reduce"]
    assert chain[0][1] == set() and len(chain[1][1]) == 1


def collectives(program: str) -> list[tuple[str, set[str]]]:
    """Return the kinds of a program's collective operations, in order, and what each waits for."""
    needs: dict[str, set[str]] = {}  # of each value: the collective operations that it depends on
    found = []
    for line in program.splitlines():
        name, equals, rest = line.strip().removeprefix("ROOT ").partition(" = ")
        if not equals or not name.startswith("%"):
            continue
        before = set().union(*(needs.get(value, set()) for value in re.findall(r"%[\w.-]+", rest)))
        match = COLLECTIVE.search(rest)
        if match:
            found.append((match[1], before))
            before = before | {name}
        needs[name] = before
    return found
