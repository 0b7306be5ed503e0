"""Where a model is."""

import json

import pytest

from dsd_jax.errors import UserError
from dsd_jax.weights import hub
from dsd_jax.weights import model_folder as folder_module
from dsd_jax.weights.model_folder import BUNDLED, checked_components, find, parts
from dsd_jax.weights.model_loading import load


def refusal(where) -> str:
    with pytest.raises(UserError) as error:
        load(where)
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    return text


def test_a_folder_as_path_or_text(folder):
    assert find(folder.path) == find(str(folder.path)) == folder.path


def test_tiny_is_the_bundled_model_whatever_lies_here(folder, monkeypatch):
    monkeypatch.chdir(folder.path.parent)
    folder.path.rename("tiny")
    monkeypatch.setattr(folder_module, "_checked", lambda path: path)
    assert find("tiny") == BUNDLED
    assert find("./tiny").name == "tiny"


def test_a_folder_goes_before_the_hub(folder, monkeypatch):
    monkeypatch.chdir(folder.path.parent.parent)
    where = f"{folder.path.parent.name}/model"
    assert find(where).samefile(folder.path)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("org/name", ("org/name", None)),
        ("org/name@fp16", ("org/name", "fp16")),
        ("Org-1/na.me_2@refs/pr/3", ("Org-1/na.me_2", "refs/pr/3")),
    ],
)
def test_hub_ids(where, expected, folder, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda *id_, **_: asked.append(id_[:2]) or folder.path)
    assert find(where) == folder.path
    assert asked == [expected]


@pytest.mark.parametrize("where", ["nowhere", "/no/such/folder", "a/b/c", "", "org/name@", "a b/c"])
def test_nothing_there(where, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("asked the Hub"))
    assert f"There is no model at '{where}'; expected" in refusal(where)


def test_a_single_file(folder):
    text = refusal(folder.file("unet"))
    assert "is a single file" in text and "from_single_file" in text


def test_an_incomplete_folder_says_what_is_there(folder):
    for part in ("tokenizer", "vae"):
        (folder.path / part).rename(folder.path / f"{part}-gone")
    text = refusal(folder.path)
    assert "vae/, tokenizer/ missing; it has unet/, text_encoder/, scheduler/." in text


def test_one_component_instead_of_the_model(folder):
    assert f"give the folder above, {folder.path}." in refusal(folder.path / "unet")


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "holiday.png").touch()
    assert "it has holiday.png." in refusal(tmp_path)


@pytest.mark.parametrize("by", ["index", "folder"])
def test_half_an_sdxl(folder, by):
    if by == "index":
        index = {"_class_name": "StableDiffusionXLPipeline"}
        (folder.path / "model_index.json").write_text(json.dumps(index))
        assert "text_encoder_2/, tokenizer_2/ missing" in refusal(folder.path)
    else:
        (folder.path / "text_encoder_2").mkdir()
        assert "tokenizer_2/ missing; it has unet/" in refusal(folder.path)


def test_another_pipeline_is_named(folder):
    (folder.path / "model_index.json").write_text(json.dumps({"_class_name": "WuerstchenPipeline"}))
    (folder.path / "unet").rename(folder.path / "prior")
    text = refusal(folder.path)
    assert "(a WuerstchenPipeline) is not a Stable Diffusion model" in text
    assert "unet/ missing" in text


def test_other_architectures_are_refused(folder):
    (folder.path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    (folder.path / "unet").rename(folder.path / "transformer")
    assert "(a FluxPipeline) has a transformer/ instead of a unet/" in refusal(folder.path)


SD = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
XL = (*SD, "text_encoder_2", "tokenizer_2")


@pytest.mark.parametrize("folders", [SD, XL])
def test_parts_of_each_family(folders):
    assert set(parts([*folders, "safety_checker"])) == set(folders)
    checked_components(folders, "here")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("transformer", *XL[1:]), "^here has a transformer/ instead of a unet/, as Stable Diff"),
        (("unet", "movq", "scheduler"), "^here has a movq/, as Kandinsky has; dsd_jax reads"),
        (set(XL) - {"text_encoder", "tokenizer"}, "it is SDXL's refiner, which only finishes"),
    ],
)
def test_other_architectures(folders, message):
    with pytest.raises(UserError, match=message) as error:
        checked_components(folders, "here")
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize("where", ["x" * 5000, "a\0b", "~nosuchuser/model"])
def test_names_that_no_folder_can_have(where):
    with pytest.raises(UserError, match="can't be read|no home folder"):
        find(where)
