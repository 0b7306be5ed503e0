"""The workdir: files that the run has not written stay, and other runs are refused."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from dsd_jax.distributed import processes
from dsd_jax.errors import UserError
from dsd_jax.experiment import workdir
from dsd_jax.experiment.workdir import REPORTS, open_workdir

SETTINGS = {"seed": 0, "learn": {"lora": {"rank": 4}}, "methods": ["dsd"], "cpu_devices": 2}
CONTENTS = {name: f"{name} of a run\n" for name in REPORTS}


def finish(folder, command="train", settings=SETTINGS, contents=CONTENTS):
    """Do what a run does in its workdir."""
    with open_workdir(folder, command, settings) as run:
        run.begin(json.dumps(settings))
        (run.folder / "scores").mkdir(exist_ok=True)
        run.write_reports(contents)
        return run.folder


def is_finished(folder, command="train", settings=SETTINGS):
    with open_workdir(folder, command, settings) as run:
        return run.is_finished


def content_of(folder: Path) -> dict[str, str]:
    """Return all that is in a folder: digests of files, targets of links."""
    return {
        str(place.relative_to(folder)): os.readlink(place)
        if place.is_symlink()
        else hashlib.sha256(place.read_bytes()).hexdigest()
        if place.is_file()
        else "a folder"
        for place in sorted(folder.rglob("*"))
    }


def assert_refused(folder, message, command="train", settings=SETTINGS):
    """Check that a run is refused in one sentence, and that nothing has changed."""
    before = content_of(folder)
    with pytest.raises(UserError, match=message), open_workdir(folder, command, settings):
        pass
    assert content_of(folder) == before


def test_a_finished_run(tmp_path):
    assert not is_finished(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert finish(tmp_path) == tmp_path
    assert is_finished(tmp_path)
    assert is_finished(tmp_path, settings=SETTINGS | {"cpu_devices": 8})  # elsewhere
    assert json.loads((tmp_path / "config.json").read_text()) == SETTINGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"holds a run with seed = 0, this one has 1; name another --workdir, or"),
        ({"learn": {"lora": {"rank": 8}}}, r"with learn.lora.rank = 4, this one has 8; name"),
        (
            {"seed": 1, "methods": ["itm"]},
            r"with methods = \['dsd'\], this one has \['itm'\], and with seed = 0, this one has 1;",
        ),
        ({"prompts": {"runs/x": "0"}}, r"with prompts.runs/x = None, this one has '0'"),
    ],
)
def test_another_config_is_refused_field_by_field(tmp_path, changes, message):
    finish(tmp_path)
    assert_refused(tmp_path, message, settings=SETTINGS | changes)


def test_other_prompts_are_refused_by_name_not_by_digest(tmp_path):
    given = {**SETTINGS, "--prompts": {"runs/a": "6b86b273ff34fce1"}}
    finish(tmp_path, "evaluate", given)
    assert_refused(tmp_path, r"--prompts = \['runs/a'\], this one has \[\];", "evaluate")
    other = {**SETTINGS, "--prompts": {"runs/b": "6b86b273ff34fce1"}}
    assert_refused(tmp_path, r"= \['runs/a'\], this one has \['runs/b'\];", "evaluate", other)
    changed = {**SETTINGS, "--prompts": {"runs/a": "d4735e3a265e16ee"}}
    message = "--prompts = 'those of then', this one has 'changed ones';"
    assert_refused(tmp_path, message, "evaluate", changed)
    assert is_finished(tmp_path, "evaluate", given)


def test_many_differences_are_cut_short(tmp_path):
    finish(tmp_path, settings={f"field-{i}": 0 for i in range(9)})
    assert_refused(tmp_path, "field-4 = 0, .* and 4 more differ;", settings={})


def test_a_mistake_that_left_no_results_can_be_mended_in_place(tmp_path):
    with open_workdir(tmp_path, "train", SETTINGS | {"seed": 5}) as run:
        run.begin("the first config")
    with open_workdir(tmp_path, "train", SETTINGS) as run:
        run.begin("the second config")
    assert (tmp_path / "config.json").read_text() == "the second config"
    (tmp_path / "config.json").write_text("with the user's notes")
    assert_refused(tmp_path, "config.json was not written by this run", settings={"seed": 5})


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", *REPORTS])
def test_files_that_no_run_wrote_are_refused(tmp_path, name):
    (tmp_path / name).write_text('{"hidden_size": 768}')
    assert_refused(tmp_path, f"{name} was not written by this run, which would overwrite it; move")


@pytest.mark.parametrize("content", ["[[1]]", "5", "{}", "[" * 5000, "\0", '{"seed": 0}'])
def test_a_config_that_no_run_wrote_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert_refused(tmp_path, "config.json was not written by this run, which would overwrite it")


def test_files_of_other_names_stay(tmp_path):
    mine = {name: tmp_path / name for name in ("notes.txt", "report.md.unfinished", "scores/a.npz")}
    for place in mine.values():
        place.parent.mkdir(exist_ok=True)
        place.write_text("mine")
    finish(tmp_path)
    assert all(place.read_text() == "mine" for place in mine.values())


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"program": "other"}', '{"scripts": {}}', "\0", "[" * 5000]
)
def test_a_run_json_of_something_else(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert_refused(tmp_path, "run.json.*; it is not what a run writes: name another --workdir")


def test_a_run_json_cut_short(tmp_path):
    finish(tmp_path)
    os.truncate(tmp_path / "run.json", 100)
    assert_refused(tmp_path, "run.json is not JSON.*; it is not what a run writes: name another")


def test_a_changed_report_of_a_finished_run_stays(tmp_path):
    finish(tmp_path)
    (tmp_path / "report.md").write_text("with the user's notes")
    assert is_finished(tmp_path)
    (tmp_path / "report.html").unlink()
    assert_refused(tmp_path, "report.md was not written by this run")


def test_deleted_reports_are_written_again(tmp_path):
    finish(tmp_path)
    for name in ("report.html", "report.json"):
        (tmp_path / name).unlink()
        assert not is_finished(tmp_path)
        finish(tmp_path, contents={name: f"{name}, later" for name in REPORTS})
        assert is_finished(tmp_path)


def test_a_report_that_appears_meanwhile_is_not_overwritten(tmp_path):
    with open_workdir(tmp_path, "train", SETTINGS) as run:
        run.begin("{}")
        (tmp_path / "report.md").write_text("mine")
        with pytest.raises(UserError, match="report.md was not written by this run"):
            run.write_reports(CONTENTS)
    assert (tmp_path / "report.md").read_text() == "mine"


@pytest.mark.parametrize("writes", range(6))
def test_killed_at_any_write_it_goes_on(tmp_path, writes, monkeypatch):
    """The next start knows the files that are there as the run's own, wherever it was killed."""
    done, write_file = [], workdir.write_file

    def killed(file, content):
        if len(done) == writes:
            raise KeyboardInterrupt
        write_file(file, content)
        done.append(file.name)

    monkeypatch.setattr(workdir, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path)
    monkeypatch.undo()
    finish(tmp_path, contents=dict.fromkeys(REPORTS, "other words"))
    assert is_finished(tmp_path)


@pytest.mark.parametrize("name", ["scores", "prompts", "checkpoints", "report.md", "run.json"])
def test_links_are_refused(tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "elsewhere" / name)
    assert_refused(folder, f"{name} is a link to .*elsewhere/{name}; a run writes into its")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_further_down_are_refused(tmp_path):
    finish(tmp_path)
    (tmp_path / "report.html").unlink()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "lora-16").symlink_to("/tmp")
    assert_refused(tmp_path, "prompts/lora-16 is a link to /tmp; a run writes")


@pytest.mark.parametrize("name", ["scores", "prompts", "evaluate"])
def test_files_in_the_place_of_folders(tmp_path, name):
    (tmp_path / name).write_text("mine")
    assert_refused(tmp_path, f"{name} is no folder; move it away, or name another")


@pytest.mark.parametrize("name", ["config.json", "run.json", "metrics.jsonl"])
def test_what_is_no_regular_file(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with (
        pytest.raises(UserError, match=f"{name} is no regular file; move it"),
        open_workdir(tmp_path, "train", SETTINGS),
    ):
        pass


def test_evaluate_in_a_folder_of_train_has_a_folder_of_its_own(tmp_path):
    finish(tmp_path)
    before = content_of(tmp_path)
    assert finish(tmp_path, "evaluate", {"seed": 7}) == tmp_path / "evaluate"
    assert before.items() <= content_of(tmp_path).items()
    assert is_finished(tmp_path, "evaluate", {"seed": 7}) and is_finished(tmp_path)
    assert_refused(tmp_path, "evaluate holds a run with seed = 7", "evaluate", {"seed": 8})


def test_train_in_a_folder_of_evaluate_is_refused(tmp_path):
    assert finish(tmp_path, "evaluate") == tmp_path
    assert_refused(tmp_path, "holds a run of evaluate, not train; name another --workdir")


def test_one_run_at_a_time(tmp_path):
    with open_workdir(tmp_path, "train", SETTINGS):
        assert_refused(tmp_path, "is in use by another run at this moment; wait for its end, or")
    assert not is_finished(tmp_path)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(workdir.fcntl, "flock", flock)
    assert finish(tmp_path) == tmp_path


def test_a_folder_of_an_earlier_version(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "prompts").mkdir()
    assert_refused(tmp_path, "config.json was not written by", settings=SETTINGS | {"seed": 3})
    assert not is_finished(tmp_path)
    for name, content in CONTENTS.items():
        (tmp_path / name).write_text(content)
    assert is_finished(tmp_path)
    (tmp_path / "report.md").unlink()
    finish(tmp_path)


def test_other_hosts_are_told(tmp_path, monkeypatch):
    """They look at no file, raise what the main process raises, and write where it writes."""
    told = []
    monkeypatch.setattr(
        processes, "broadcast_text_from_main", lambda text: told.append(text) or text
    )
    finish(tmp_path)
    finish(tmp_path, "evaluate")
    assert_refused(tmp_path, "seed = 0", settings=SETTINGS | {"seed": 1})
    monkeypatch.setattr(processes, "is_main", lambda: False)
    monkeypatch.setattr(processes, "broadcast_text_from_main", lambda text: told.pop())
    for message in ("seed = 0", None, None):
        if message:
            assert_refused(tmp_path / "nowhere", message)
            continue
        with open_workdir(tmp_path / "nowhere", "train", SETTINGS) as run:
            assert run.folder in (tmp_path, tmp_path / "evaluate")
