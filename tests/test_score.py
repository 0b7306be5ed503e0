"""The score command and its heat maps; the last tests use the bundled model."""

import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dsd_jax
from dsd_jax.cli import run_command
from dsd_jax.config import score_spec
from dsd_jax.errors import UserError
from dsd_jax.matching.explanation import Explanation
from dsd_jax.matching.plot_heatmaps import Scale, file_name, overlay
from dsd_jax.prompts.prompt_files import write_prompts
from dsd_jax.score import main

ROOT = Path(__file__).parents[1]
SCORES = np.array([[4.71, 4.83, 4.70], [0.2, 0.1, 0.3]], np.float32)
CAPTIONS = ("a red circle", "a blue square", "a " + "very " * 20 + "long caption")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (64, 64), colour).save(path)
    return [str(path) for path in paths]


@pytest.fixture
def calls(monkeypatch) -> dict:
    """Puts a model in place that answers at once and records how it was called."""
    calls = {}

    def match_scores(model, images, captions, **options):
        calls["match_scores"] = (model, images, captions, options)
        return SCORES[: len(images), : len(captions)]

    def explain(model, image, caption, **_):
        words = caption.split()
        maps = np.linspace(0.1, 1, len(words) * 64 * 64).reshape(len(words), 64, 64)
        return Explanation(image, caption, words, maps, {}, "model", 10)

    monkeypatch.setattr(dsd_jax, "load", lambda weights, **_: f"model {weights}", raising=False)
    monkeypatch.setattr(dsd_jax, "match_scores", match_scores, raising=False)
    monkeypatch.setattr(dsd_jax, "explain", explain, raising=False)
    return calls


def arguments(pictures, captions=CAPTIONS) -> list[str]:
    images = [part for path in pictures for part in ("--image", path)]
    said = [part for caption in captions for part in ("--caption", caption)]
    return ["--quiet", *images, *said]  # the model that is put in place has no facts to show


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    """Runs Python in a process of its own, from the root of the repository."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_table_marks_the_best_caption_of_each_image(pictures, calls, capsys):
    main([*arguments(pictures), "--method=noise", "--seed=3"])
    title, more, blank, head, *lines = capsys.readouterr().out.splitlines()
    assert f"{title} {more}" == (
        "noise scores by tiny, 10 timesteps, seed 3 "
        "(higher fits better; * best caption of the image)"
    )
    assert blank == "" and max(len(title), len(more)) <= 80
    assert head.split() == ["caption", "red.png", "blue.png"]
    assert lines[0].split() == ["a", "red", "circle", "4.710", "0.200"]
    assert lines[1].split() == ["a", "blue", "square", "4.830*", "0.100"]
    assert lines[2].split()[-2:] == ["4.700", "0.300*"]
    assert lines[3].startswith("  very")
    assert max(map(len, lines)) <= 80


def test_single_caption_is_not_called_the_best(pictures, calls, capsys):
    main(arguments(pictures, CAPTIONS[:1]))
    assert "*" not in capsys.readouterr().out


def test_many_images_go_into_blocks(tmp_path, calls, capsys, monkeypatch):
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path in paths:
        Image.new("RGB", (9, 9)).save(path)
    scores = np.arange(12.0)[:, None] + np.arange(2.0)
    monkeypatch.setattr(dsd_jax, "match_scores", lambda *_, **__: scores, raising=False)
    main(arguments([str(path) for path in paths], CAPTIONS[:2]))
    _, *blocks = capsys.readouterr().out.split("\n\n")
    assert [len(block.splitlines()[0].split()) for block in blocks] == [9, 5]
    assert blocks[1].splitlines()[1].split()[-2:] == ["10.00", "11.00"]


def test_images_of_the_same_name_are_told_apart(tmp_path, calls, capsys):
    paths = [tmp_path / folder / "a.png" for folder in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (9, 9)).save(path)
    main(arguments([str(path) for path in paths], CAPTIONS[:2]))
    head = capsys.readouterr().out.partition("\n\n")[2].split("\n")[0]
    assert [name[-9:] for name in head.split()[1:]] == ["one/a.png", "two/a.png"]


def test_control_characters_do_not_reach_the_terminal(tmp_path, calls, capsys):
    path = tmp_path / "a\x1b[2J\nb.png"
    Image.new("RGB", (9, 9)).save(path)
    main(arguments([str(path)], ["a \x1b[2J cat", "a dog"]))
    head, *lines = capsys.readouterr().out.partition("\n\n")[2].split("\n")
    assert head.split() == ["caption", r"a\x1b[2J\nb.png"]
    assert lines[0].split() == ["a", r"\x1b[2J", "cat", "4.710"]


def test_json_holds_the_matrix_and_how_it_was_made(pictures, calls, capsys):
    main([*arguments(pictures), "--json", "--weights=other", "--timesteps=4"])
    result = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(result.pop("scores"), SCORES)
    assert result == {
        "weights": "other",
        "prompts": None,
        "method": "dsd",
        "timesteps": 4,
        "seed": 0,
        "images": pictures,
        "captions": list(CAPTIONS),
        "best_caption": [1, 2],
    }
    model, images, captions, options = calls["match_scores"]
    assert model == "model other"
    assert [image.getpixel((0, 0)) for image in images] == [(255, 0, 0), (0, 0, 255)]
    assert captions == list(CAPTIONS)
    said = {"method": "dsd", "timesteps": 4, "seed": 0, "prompts": None, "force": False}
    assert options == {**said, "progress": False}


def test_prompts_folder_is_handed_on(pictures, calls, tmp_path, capsys):
    write_prompts(tmp_path, {}, {})
    main([*arguments(pictures), f"--prompts={tmp_path}"])
    assert calls["match_scores"][3]["prompts"] == str(tmp_path)
    assert f"/{tmp_path.name}, 10 timesteps" in " ".join(capsys.readouterr().out.split())


ABOUT = {"recipe": {"methods": ["relative"]}, "timesteps": score_spec.timesteps(6).tolist()}


def test_prompts_say_which_score_they_are_for(pictures, calls, tmp_path, capsys):
    write_prompts(tmp_path, {}, ABOUT)
    main([*arguments(pictures), f"--prompts={tmp_path}"])
    options = calls["match_scores"][3]
    assert (options["method"], options["timesteps"]) == ("relative", 6)
    assert "relative scores by tiny" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--method=dsd", "was learned for relative, not for dsd: leave the method out"),
        ("--timesteps=10", "was learned at 6 timesteps, not at 10: leave the number out"),
    ],
)
def test_prompts_for_another_score_are_refused(pictures, calls, tmp_path, option, message):
    write_prompts(tmp_path, {}, ABOUT)
    with pytest.raises(UserError, match=message):
        main([*arguments(pictures), f"--prompts={tmp_path}", option])
    assert "match_scores" not in calls
    main([*arguments(pictures), f"--prompts={tmp_path}", option, "--force"])
    assert calls["match_scores"][3]["force"]


def test_heatmaps_are_written_and_named(pictures, calls, tmp_path, capsys):
    folder = tmp_path / "maps"
    options = [f"--heatmaps={folder}", "--json"]
    main([*arguments(pictures, CAPTIONS[:2]), *options])
    names = [f"{i}-caption-{c}.png" for i in ("1-red", "2-blue") for c in (1, 2)]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert json.loads(capsys.readouterr().out)["heatmaps"] == [str(folder / n) for n in names]
    with Image.open(folder / names[0]) as sheet:
        assert sheet.width > 3 * 224  # the picture, two words, and a small one for "a"
    main([*arguments(pictures, CAPTIONS[:2]), options[0]])
    assert str(folder / names[3]) in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_scores_that_are_no_numbers_are_one_sentence(pictures, calls, monkeypatch, value, form):
    scores = np.where(SCORES > 4, value, SCORES)
    monkeypatch.setattr(dsd_jax, "match_scores", lambda *_, **__: scores, raising=False)
    with pytest.raises(UserError, match="tiny gives scores that are not finite"):
        main([*arguments(pictures), *form])


def test_heatmaps_that_fail_leave_scores_and_earlier_ones(pictures, calls, tmp_path, capsys):
    folder = tmp_path / "maps"
    (folder / "1-red-caption-3.png").mkdir(parents=True)  # in the way of the third
    with pytest.raises(SystemExit) as stop:
        run_command(main, [*arguments(pictures), f"--heatmaps={folder}", "--json"])
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and "3.png cannot be written (Is a dir" in output.err
    result = json.loads(output.out)
    np.testing.assert_allclose(result["scores"], SCORES)
    assert result["heatmaps"] == [str(folder / f"1-red-caption-{c}.png") for c in (1, 2)]


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f408", "\udce9"])
def test_long_names_of_heatmaps_are_cut_and_stay_distinct(letter):
    length = 250 // len(os.fsencode(letter))
    names = [file_name(1, letter * length + end, 2) for end in ("a", "b", "")]
    assert len(set(names)) == 3 and all(len(os.fsencode(name)) < 200 for name in names)
    assert file_name(1, letter * 9, 2) == f"1-{letter * 9}-caption-2.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--caption", " "], "--caption number 4 is empty"),
        (["--caption", "caf\udce9"], r"--caption number 4 'caf\\udce9' is no text in UTF-8"),
        (["--timesteps=0"], "--timesteps=0 should be from 1 to 1000"),
        (["--timesteps=few"], "argument --timesteps: invalid int value: 'few'"),
        (["--seed=-1"], "--seed is -1; expected a whole number from 0 to 4294967295"),
        (["--seed=4294967296"], "--seed is 4294967296; expected a whole number from 0 to"),
        (["--prompts=nowhere"], "--prompts=nowhere is not a folder"),
        (["--image", "missing.png"], "missing.png is missing"),
        (["--image", __file__], "test_score.py is not an image"),
        (["--heatmaps", __file__], "--heatmaps=.* cannot be written to"),
        (["--captions=missing.txt"], "missing.txt is missing"),
        (["--image", "no-such-*.png"], "--image 'no-such-[*].png' matches no file"),
        (["--method=nonsense"], "method 'nonsense' is unknown; expected one of attention, noise, "),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_mistake_is_one_sentence_before_the_model_is_loaded(pictures, calls, change, message):
    with pytest.raises(UserError, match=message):
        main([*arguments(pictures), *change])
    assert calls == {}


@pytest.mark.parametrize("quoted", [True, False])
def test_images_by_pattern_and_captions_in_a_file(pictures, calls, tmp_path, quoted):
    file = tmp_path / "captions.txt"
    file.write_text("\ufeffa red circle\n\n  a blue square \r\n", encoding="utf-8")
    images = [f"{tmp_path}/*.png"] if quoted else sorted(pictures)
    main(["--quiet", "--image", *images, "--caption", "a dog", f"--captions={file}"])
    _, images, captions, _ = calls["match_scores"]
    assert [image.getpixel((0, 0)) for image in images] == [(0, 0, 255), (255, 0, 0)]
    assert captions == ["a dog", "a red circle", "a blue square"]


def test_captions_from_stdin(pictures, calls, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a red circle\na dog\n")))
    main(["--quiet", "--image", *pictures, "--captions=-"])
    assert calls["match_scores"][2] == ["a red circle", "a dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n\n", "--captions: .*captions.txt has no text in it; write one a line"),
        (b"a cat\n\xff\n", "captions.txt, line 2 is no text in UTF-8"),
    ],
)
def test_a_file_without_captions_is_one_sentence(pictures, calls, tmp_path, content, message):
    (tmp_path / "captions.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        main(["--image", *pictures, f"--captions={tmp_path}/captions.txt"])
    with pytest.raises(UserError, match="there is no caption; give some by --caption TEXT or"):
        main(["--image", *pictures])
    assert calls == {}


def test_what_is_printed_fits_80_columns_unless_wide(pictures, calls, tmp_path, capsys):
    folder = tmp_path / ("a-long-name-" * 9) / "adapted-256" / "seed-0"
    folder.parent.mkdir(parents=True)
    write_prompts(folder, {}, {})
    picture = tmp_path / f"{'photograph-' * 9}1.png"
    shutil.copy(pictures[0], picture)
    asked = [*arguments([str(picture), pictures[1]]), f"--prompts={folder}"]
    main(asked)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert ".../adapted-256/seed-0," in " ".join(text.split()) and "h-1.png" in text
    main([*asked, "--wide"])
    title, _, head, *lines = capsys.readouterr().out.splitlines()
    assert "h-1.png" in head and "blue.png" in head and len(lines) == len(CAPTIONS)
    assert any(CAPTIONS[2] in line for line in lines)


def test_warning_is_one_line_on_stderr(pictures, calls, capsys, monkeypatch):
    def match_scores(*args, **options):
        warnings.simplefilter("always")
        warnings.warn("the caption is cut after 'a very'", stacklevel=2)
        return SCORES

    monkeypatch.setattr(dsd_jax, "match_scores", match_scores, raising=False)
    with pytest.raises(SystemExit) as stop:
        run_command(main, [*arguments(pictures), "--json"])
    assert stop.value.code == 0
    output = capsys.readouterr()
    assert output.err == "warning: the caption is cut after 'a very'\n"
    json.loads(output.out)


def test_help_and_mistakes_do_not_wait_for_heavy_imports():
    code = (
        "import sys, dsd_jax.score as s\n"
        "try: s.main(['--image=no.png', '--caption=x'])\n"
        "except Exception as e: print(e)\n"
        "print(sorted({'jax', 'flax', 'transformers', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    done = run_python("-c", code)
    assert done.stdout.splitlines()[1:] == ["[]"], done.stderr


def test_overlay_is_bright_where_the_map_is_high():
    image, heat = Image.new("RGB", (64, 64), (100, 100, 100)), np.zeros((8, 8), np.float32)
    heat[:, 4:] = 7.0
    drawn = overlay(image, heat, Scale("", 0.0, 7.0))
    assert (drawn.dtype, drawn.shape) == (np.uint8, (64, 64, 3))
    assert drawn[:, 50:].mean() > 150 > 60 > drawn[:, :14].mean()
    flat = overlay(image, np.full((8, 8), 7.0, np.float32), Scale("", 7.0, 7.0))
    assert flat.std(axis=(0, 1)).max() == 0


def test_command_says_what_the_library_says(pictures, capsys):
    captions = ["a red apple", "a blue book"]
    main([*arguments(pictures, captions), "--json", "--timesteps=2", "--method=relative"])
    result = json.loads(capsys.readouterr().out)
    model = dsd_jax.load("tiny")
    expected = dsd_jax.match_scores(model, pictures, captions, method="relative", timesteps=2)
    np.testing.assert_allclose(result["scores"], expected, rtol=1e-6)


def test_heatmaps_of_the_bundled_model(pictures, tmp_path):
    folder = tmp_path / "maps"
    main([*arguments(pictures[:1], ["a red apple"]), f"--heatmaps={folder}", "--timesteps=1"])
    assert [path.name for path in folder.iterdir()] == ["1-red-caption-1.png"]


def test_process_exits_with_2_and_one_line(pictures):
    done = run_python("-m", "dsd_jax.score", "--image", pictures[0], "--caption", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --caption number 1 is empty; give each caption some text.\n"
