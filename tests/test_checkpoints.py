"""Checkpoints: the newest whole one comes back bit for bit, or the one before it does."""

import gc
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.checkpoints import KEEP, Checkpoints
from dsd_jax.digest import digest
from dsd_jax.errors import UserError

# After an error in one file Orbax leaves the reading of others unfinished, and Python says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
IDENTITY = {"rate": 0.1, "layers": ("down", "up"), "shots": {"count": 16}}


def state(step: int):
    """Leaves of every kind that training has."""
    rng = np.random.default_rng(step)
    return {
        "params": {"kernel": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32)},
        "count": jnp.asarray(step, jnp.int32),
        "half": jnp.asarray(rng.normal(size=5), jnp.bfloat16),
        "history": np.array([step, np.nan], np.float32),
        "best": np.asarray(step),
    }


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert type(one) is type(other) and one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture(autouse=True)
def tidy():
    """Python says it here and not in the midst of another test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints of steps 1 and 2; copy it before changing anything in it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    with Checkpoints(folder, IDENTITY) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def restore(folder: Path, identity=IDENTITY):
    with Checkpoints(folder, identity) as checkpoints:
        return checkpoints.restore(state(0))


def test_newest_is_restored_bit_for_bit(folder, capfd):
    step, found = restore(folder)
    assert step == 2
    assert_same(found, state(2))
    assert capfd.readouterr().err == ""


def test_restored_arrays_can_be_written_to(folder):
    """As learning does with the history of held-out losses."""
    restore(folder)[1]["history"][1] = 3.0


def test_no_checkpoint_yet(tmp_path):
    assert restore(tmp_path / "new") is None


def test_only_the_last_ones_are_kept(folder):
    with Checkpoints(folder, IDENTITY) as checkpoints:
        for step in (3, 4, 5):
            checkpoints.save(step, state(step))
    assert sorted(os.listdir(folder)) == ["4", "5"] and KEEP == 2


def test_a_state_that_changes_after_it_was_saved(tmp_path):
    """Saving goes on in the background while training donates and changes what was handed in."""
    change = jax.jit(lambda x: x + 1, donate_argnums=0)
    now, past = {"x": jnp.zeros(300_000), "history": np.zeros(300_000)}, {}
    with Checkpoints(tmp_path, {}) as checkpoints:
        for step in range(1, 6):
            now = {"x": change(now["x"]), "history": now["history"]}
            now["history"] += 1
            checkpoints.save(step, now)
    with Checkpoints(tmp_path, {}) as checkpoints:
        step, past = checkpoints.restore(now)
    assert step == 5
    np.testing.assert_array_equal(past["x"], np.full(300_000, 5))
    np.testing.assert_array_equal(past["history"], np.full(300_000, 5))


def files_of(step: Path) -> list[Path]:
    return sorted(file for file in step.rglob("*") if file.is_file() and file.stat().st_size)


def largest(step: Path) -> Path:
    return max(files_of(step), key=lambda file: file.stat().st_size)


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def truncate(step: Path) -> None:
    os.truncate(largest(step), largest(step).stat().st_size // 2)


def flip(step: Path) -> None:
    change_byte(largest(step), largest(step).stat().st_size // 2)


def lose(step: Path) -> None:
    largest(step).unlink()


def change_byte(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(content)


DAMAGES = [empty, truncate, flip, lose]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_aloud(folder, damage, capfd):
    damage(folder / "2")
    step, found = restore(folder)
    assert step == 1
    assert_same(found, state(1))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"checkpoint 2 in {folder} is damaged, passed over: ")


def test_an_empty_folder_after_the_newest(folder, capfd):
    (folder / "3").mkdir()
    assert restore(folder)[0] == 2
    assert "checkpoint 3 in" in capfd.readouterr().err


def test_all_damaged(folder, capfd):
    flip(folder / "1")
    empty(folder / "2")
    assert restore(folder) is None
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_no_damage_goes_unnoticed(saved, tmp_path):
    """Whichever file of the state is hit: the same state, or that of the step before."""
    for number, name in enumerate(file.relative_to(saved) for file in files_of(saved / "2")):
        if name.parts[1] == "meta":
            continue
        copy = shutil.copytree(saved, tmp_path / str(number))
        change_byte(copy / name, (copy / name).stat().st_size // 3)
        step, found = restore(copy)
        assert_same(found, state(step))


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_run_goes_on_saving_after_a_damaged_one(folder, damage, capfd):
    damage(folder / "2")
    with Checkpoints(folder, IDENTITY) as checkpoints:
        assert checkpoints.restore(state(0))[0] == 1
        checkpoints.save(2, state(20))
    capfd.readouterr()
    step, found = restore(folder)
    assert step == 2
    assert_same(found, state(20))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": 0.2}, "a run with rate = 0.1, this one has 0.2; take another --workdir or"),
        ({"shots": {"count": 8}}, "shots.count = 16, this one has 8; take"),
        ({"new": 1}, "a run with new = None, this one has 1"),
    ],
)
def test_another_runs_folder_is_refused(folder, changed, message):
    with pytest.raises(UserError, match=message):
        restore(folder, IDENTITY | changed)


def test_digest_knows_names_types_shapes_and_bytes():
    tree = {"a": np.zeros(4, np.float32)}
    others = [
        {"b": np.zeros(4, np.float32)},
        {"a": np.zeros(4, np.int32)},
        {"a": np.zeros((2, 2), np.float32)},
        {"a": -np.zeros(4, np.float32)},
    ]
    assert len({digest(one) for one in [tree, *others]}) == 5
    assert digest(tree) == digest({"a": jnp.zeros(4)})
