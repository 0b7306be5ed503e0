"""Checkpoints: the newest intact one is restored bit for bit, or else the one before it."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.io.storage import storage_errors
from dsd_jax.training.checkpoint_digests import digest
from dsd_jax.training.checkpoints import KEEP, Checkpoints

# After an error in one file Orbax leaves the reading of others unfinished, and Python says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
IDENTITY = {"rate": 0.1, "layers": ("down", "up"), "shots": {"count": 16}}


def state(step: int):
    """Return a state with leaves of every kind that training has."""
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
    """Collect garbage, so that its warnings do not appear within another test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder with checkpoints of steps 1 and 2; copy it before changing it."""
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
    history = restore(folder)[1]["history"]
    history[1] = 3.0
    assert history[1] == 3.0


def test_no_checkpoint_yet(tmp_path):
    assert restore(tmp_path / "new") is None


def test_only_the_last_ones_are_kept(folder):
    with Checkpoints(folder, IDENTITY) as checkpoints:
        for step in (3, 4, 5):
            checkpoints.save(step, state(step))
    assert sorted(os.listdir(folder)) == ["4", "5"] and KEEP == 2


def test_the_best_is_kept_as_well(tmp_path):
    for metrics in ({1: 5.0, 2: 3.0, 3: 4.0}, {4: None, 5: 3.5, 6: None}):
        with Checkpoints(tmp_path, {}) as checkpoints:  # a new process knows it, too
            for step, metric in metrics.items():
                checkpoints.save(step, state(step), metric=metric)
    with Checkpoints(tmp_path, {}) as checkpoints:
        assert checkpoints.best == 3.0
        assert checkpoints.restore(state(0))[0] == 6  # nevertheless
    assert sorted(os.listdir(tmp_path)) == ["2", "5", "6"]


def test_the_newest_of_equals_is_the_best(tmp_path):
    with Checkpoints(tmp_path, {}) as checkpoints:
        for step, metric in enumerate([1.0, 1.0, 2.0, 2.0, 2.0]):
            checkpoints.save(step, state(step), metric=metric)
    assert sorted(os.listdir(tmp_path)) == ["1", "3", "4"]


def test_a_damaged_metric_is_none(tmp_path):
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(1, state(1), metric=0.5)
        checkpoints.save(2, state(2), metric=1.5)
    meta = tmp_path / "1" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace('"metric": 0.5', '"metric": 0.1'))
    with Checkpoints(tmp_path, {}) as checkpoints:
        assert checkpoints.best == 1.5


def test_what_a_checkpoint_says_of_itself(tmp_path):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        tree = {"prompts": {"lora": jnp.ones(3)}, "step": np.asarray(4)}
        checkpoints.save(4, tree, examples=64, metric=0.25)
    meta = json.loads((tmp_path / "4" / "meta" / "metadata").read_text())
    assert meta["data"] == {"next_batch": 4, "examples": 64}
    assert meta["step"] == 4 and meta["metric"] == 0.25
    assert meta["identity"] == IDENTITY | {"layers": ["down", "up"]}
    assert meta["digests"].keys() == {"prompts.lora", "step"}


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


def truncate_file(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_file(file: Path) -> None:
    change_byte(file, file.stat().st_size // 3)


@pytest.mark.parametrize("damage", [truncate_file, flip_file, Path.unlink])
def test_no_damage_goes_unnoticed(saved, tmp_path, damage, capfd):
    """Whichever file is hit: the same state, or that of the step before and a line that says so."""
    noticed = set()
    for number, name in enumerate(file.relative_to(saved) for file in files_of(saved / "2")):
        copy = shutil.copytree(saved, tmp_path / str(number))
        damage(copy / name)
        step, found = restore(copy)
        assert_same(found, state(step))
        assert ("checkpoint 2 in" in capfd.readouterr().err) == (step == 1)
        if step == 1:
            noticed.add(str(name.relative_to("2")))
    assert {"meta/metadata", "state/manifest.ocdbt"} <= noticed
    assert any("/d/" in name for name in noticed)
    # Without this one Orbax goes by the state that is asked for.
    assert ("state/_METADATA" in noticed) == (damage is not Path.unlink)


def test_a_damaged_description_is_not_another_run(folder, capfd):
    meta = folder / "2" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace('"rate": 0.1', '"rate": 0.3'))
    assert restore(folder)[0] == 1
    assert "checkpoint 2 in" in capfd.readouterr().err


def test_a_state_that_is_not_finite_is_passed_over(tmp_path, capfd):
    """Earlier versions saved it, and ended again at each start."""
    with Checkpoints(tmp_path, {}) as checkpoints:
        for step, value in ((1, 1.0), (2, np.nan)):
            checkpoints.save(step, {"x": jnp.full(3, value), "history": np.array([np.nan])})
    with Checkpoints(tmp_path, {}) as checkpoints:
        step, _ = checkpoints.restore({"x": jnp.zeros(3), "history": np.zeros(1)})
        assert step == checkpoints.newest() == 1
    assert "passed over: its state is not finite" in capfd.readouterr().err


@pytest.mark.parametrize("content", ['"x"', "[]", '{"init_timestamp_nsecs": "x"}'])
def test_notes_that_orbax_cannot_read_cost_nothing(folder, content):
    (folder / "2" / "_CHECKPOINT_METADATA").write_text(content)
    assert restore(folder)[0] == 2
    (aside,) = (folder / "2").glob("damaged_CHECKPOINT_METADATA-*")
    assert aside.read_text() == content


@pytest.mark.parametrize("name", ["state/_METADATA", "meta/metadata"])
def test_a_description_of_another_kind_is_damage(folder, name):
    (folder / "2" / name).write_text("[]")
    assert restore(folder)[0] == 1


@pytest.mark.parametrize("bug", [AttributeError, ImportError, TypeError])
def test_a_bug_is_not_taken_for_damage(folder, bug, monkeypatch):
    def broken(*_, **__):
        raise bug("a bug")

    with Checkpoints(folder, IDENTITY) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", broken)
        with pytest.raises(bug, match="a bug"):
            checkpoints.restore(state(0))


def test_a_folder_of_the_users_with_the_name_of_a_step_stays(folder):
    (folder / "0").mkdir()
    (folder / "0" / "notes.txt").write_text("mine")
    with Checkpoints(folder, IDENTITY) as checkpoints:
        assert checkpoints.restore(state(0))[0] == 2
        for step in (3, 4):
            checkpoints.save(step, state(step))
    assert sorted(os.listdir(folder)) == ["0", "3", "4"]
    assert (folder / "0" / "notes.txt").read_text() == "mine"


def test_a_killed_save(folder, capfd):
    """Files that Orbax leaves behind when a save is killed."""
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    (folder / "3.orbax-checkpoint-tmp" / "commit_success.txt").unlink()
    with Checkpoints(folder, IDENTITY) as checkpoints:
        assert checkpoints.restore(state(0))[0] == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line == f"checkpoint 3 in {folder} is unfinished, passed over: its save was killed"
        checkpoints.save(3, state(3))
    assert restore(folder)[0] == 3
    assert capfd.readouterr().err == ""


def test_a_copy_under_another_number(folder, capfd):
    shutil.copytree(folder / "1", folder / "7")
    assert restore(folder)[0] == 2
    assert "checkpoint 7 in" in (told := capfd.readouterr().err) and "a copy of step 1" in told


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


SAVES = """
import resource, signal, sys
import jax.numpy as jnp
import numpy as np
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.cli import run_command

def main(argv):
    with Checkpoints(argv[0], {}) as checkpoints:
        checkpoints.save(1, {"x": jnp.zeros(3)})
        checkpoints._manager.wait_until_finished()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        for step in range(2, 2 + int(argv[1])):
            checkpoints.save(step, {"x": jnp.asarray(np.random.default_rng(0).normal(size=50_000))})

run_command(main)
"""


@pytest.mark.parametrize("saves", [1, 2])
def test_a_disk_that_takes_no_more(tmp_path, saves):
    """The save fails in the background, before the next one or at the end; files may be as large
    as 20 kB, for a full disk takes a file system of its own.
    """
    done = subprocess.run(
        [sys.executable, "-c", SAVES, str(tmp_path), str(saves)],
        cwd=Path(__file__).parents[2], env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: checkpoints in {tmp_path} cannot be saved (File too large)")
    assert "Traceback" not in done.stderr
    with Checkpoints(tmp_path, {}) as checkpoints:
        assert checkpoints.restore({"x": jnp.ones(3)})[0] == 1


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"in .*file cannot be opened \(.*make room or allow it"):
        Checkpoints(tmp_path / "file", {})


def test_a_device_without_memory_is_not_a_full_disk():
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"), storage_errors("it failed"):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    message = r"it failed \(No space left on device\); make room"
    with pytest.raises(UserError, match=message), storage_errors("it failed"):
        raise ValueError("RESOURCE_EXHAUSTED: x: No space left on device [os_error_code='28']")


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
