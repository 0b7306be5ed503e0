"""A CLIP's folder: where it is looked for, each form in which it loads, what is saved."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import load_file, save_file

from dsd_jax.clip.clip_files import BUNDLED, find_clip, load_clip, save_clip
from dsd_jax.clip.clip_model import Normalizer
from dsd_jax.distributed.sharding import host_mesh
from dsd_jax.errors import UserError
from tests.files import replace_by
from tests.random_clip import CLIP, random_clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the random CLIP in float32, which a test may change."""
    save_clip(random_clip(), tmp_path / "clip", np.float32)
    return tmp_path / "clip"


# All of openai/clip-vit-large-patch14 but the folders of git.
PUBLISHED = [
    "README.md",
    "config.json",
    "flax_model.msgpack",
    "merges.txt",
    "model.safetensors",
    "preprocessor_config.json",
    "pytorch_model.bin",
    "special_tokens_map.json",
    "tf_model.h5",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
]
UNNEEDED = {"README.md", "flax_model.msgpack", "pytorch_model.bin", "tf_model.h5"}


def test_the_bundled_clip():
    assert find_clip("tiny-clip") == BUNDLED


def test_a_folder(folder):
    assert find_clip(folder) == folder


def test_nothing_of_that_name():
    with pytest.raises(
        UserError, match="There is no CLIP at 'tiny'; expected \"tiny-clip\", a fol"
    ):
        find_clip("tiny")


def test_a_diffusion_model():
    with pytest.raises(UserError, match="is a diffusion pipeline and no CLIP"):
        find_clip(BUNDLED.parent / "tiny")


def test_a_folder_without_a_model(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="is no CLIP: expected a folder with .* found notes.txt"):
        find_clip(tmp_path)


def test_what_is_fetched_from_the_hub(folder, monkeypatch):
    asked = []

    def download(repo, revision, allow_patterns):
        asked.append((repo, revision, set(allow_patterns)))
        return str(folder)

    files = [SimpleNamespace(rfilename=name) for name in PUBLISHED]
    info = SimpleNamespace(siblings=files)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_clip("openai/clip@main").image_size == 8
    small, everything = asked
    assert everything == ("openai/clip", "main", set(PUBLISHED) - UNNEEDED)
    assert "config.json" in small[2] and "model.safetensors" not in small[2]


def test_a_hub_out_of_reach(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="no route.*; or give a folder with config.json, model.saf"):
        find_clip("openai/clip")


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_json(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def assert_same(params):
    jax.tree.map(np.testing.assert_array_equal, params, random_clip().params)


def test_safetensors(folder):
    clip = load_clip(folder)
    assert clip.config == random_clip().config and clip.name == str(folder)
    assert_same(clip.params)


def test_flax_msgpack(folder):
    (folder / "model.safetensors").unlink()
    tree = jax.tree.map(np.asarray, random_clip().params)
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    assert_same(load_clip(folder).params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bits_on_disk(folder, dtype):
    change(folder, lambda t: t.update({name: x.astype(dtype) for name, x in t.items()}))
    jax.tree.map(
        lambda found, x: np.testing.assert_array_equal(found, np.asarray(x).astype(dtype)),
        load_clip(folder).params,
        random_clip().params,
    )


def test_the_logit_scale_stays_float32(folder):
    change(folder, lambda t: t.update(logit_scale=np.array(4.6052, np.float32)))
    clip = load_clip(folder, jnp.bfloat16)
    assert (
        clip.dtype == jnp.bfloat16
        and clip.params["text_model"]["final_layer_norm"]["scale"].dtype == jnp.bfloat16
    )
    assert clip.logit_scale == pytest.approx(100.0, rel=1e-4)  # 98.5 as bfloat16


def test_positions_of_older_files_are_ignored(folder):
    positions = {
        "text_model.embeddings.position_ids": np.arange(16)[None],
        "vision_model.embeddings.position_ids": np.arange(5)[None],
    }
    change(folder, lambda t: t.update(positions))
    assert_same(load_clip(folder).params)


def test_a_config_that_says_little():
    """As OpenAI's: what equals transformers' defaults is left out."""
    from dsd_jax.models.clip import CLIPConfig

    config = CLIPConfig.from_json({"text_config": {"eos_token_id": 2}, "vision_config": {}})
    assert (config.text.hidden_size, config.text.heads, config.text.positions) == (512, 8, 77)
    assert (config.vision.hidden_size, config.vision.patch_size) == (768, 32)
    assert (config.text.projection, config.text.end_token) == (512, 2)
    assert CLIPConfig.from_json(config.to_json()) == config


def test_all_that_does_not_fit_is_listed(folder):
    def edit(tensors):
        del tensors["visual_projection.weight"]
        tensors["logit_bias"] = np.zeros(1, np.float32)
        tensors["vision_model.embeddings.class_embedding"] = np.zeros(7, np.float32)

    change(folder, edit)
    with pytest.raises(UserError) as error:
        load_clip(folder)
    lines = str(error.value).split("\n")
    assert lines[0].startswith(f"The weights in {folder} do not fit the configs there")
    assert lines[1:] == [
        "1 missing, 1 extra, 1 of another shape or type",
        "  - visual_projection.weight (8, 12)",
        "  + logit_bias (1,)",
        "  ~ vision_model.embeddings.class_embedding is (7,), expected (12,)",
    ]


def test_numbers_that_are_not_finite(folder):
    change(folder, lambda t: t["visual_projection.weight"].__setitem__(0, np.nan))
    with pytest.raises(UserError, match=r"1 tensors .* hold NaN(.|\n)*visual_projection.weight"):
        load_clip(folder)


def test_another_model(folder):
    change_json(folder / "config.json", architectures=["SiglipModel"])
    expected = "describes the class SiglipModel, expected CLIPModel of a CLIP, such as openai/"
    with pytest.raises(UserError, match=expected):
        load_clip(folder)


@pytest.mark.parametrize(
    ("tower", "values", "message"),
    [
        (
            "vision_config",
            {"patch_size": 3},
            "patch_size is 3; expected a divisor of image_size, 8",
        ),
        ("vision_config", {"image_size": [8, 4]}, "image_size is [8, 4], expected a whole number"),
        ("vision_config", {"num_channels": 4}, "num_channels is 4, but only 3 is supported"),
        ("vision_config", {"hidden_act": "relu"}, "vision_config: hidden_act is 'relu', expected"),
        ("text_config", {"hidden_act": "relu"}, "text_config: hidden_act is 'relu', expected"),
        ("text_config", {"vocab_size": 900}, "it has 908 tokens but the text_config's vocab_size"),
        ("text_config", {"eos_token_id": 906}, "its end token is 907 but the text_config's eos"),
        ("vision_config", {"num_attention_heads": 5}, "num_attention_heads is 5, expected"),
    ],
)
def test_a_config_that_we_can_not_do(folder, tower, values, message):
    change_json(folder / "config.json", **{tower: CLIP[tower] | values})
    with pytest.raises(UserError, match=re.escape(message)):
        load_clip(folder)


def test_how_pixels_are_normalized(folder):
    file = folder / "preprocessor_config.json"
    change_json(file, image_mean=[0.5, 0.25, 0], image_std=[1, 2, 3])
    assert load_clip(folder).normalize == ((0.5, 0.25, 0), (1, 2, 3))
    file.unlink()  # OpenAI's numbers
    assert load_clip(folder).normalize == random_clip().normalize


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_mean": [0.5, 0.5]}, "image_mean is [0.5, 0.5], expected at least 3 entries"),
        ({"image_mean": "0.5"}, "image_mean is '0.5', expected a list"),
        ({"image_mean": ["a", 0, 0]}, "image_mean.0 is 'a', expected a number"),
        ({"image_mean": [True, 0, 0]}, "image_mean.0 is True, expected a number"),
        ({"image_mean": [1e39, 0, 0]}, "image_mean.0 is 1e+39, expected 1000 or less"),
        ({"image_std": [1, 0, 1]}, "image_std.1 is 0, expected 0.001 or more"),
        ({"do_normalize": False}, "do_normalize is False, expected True"),
        ({"rescale_factor": 1}, "rescale_factor is 1, expected 0.00"),
    ],
)
def test_pixels_that_are_normalized_otherwise(folder, values, message):
    file = folder / "preprocessor_config.json"
    change_json(file, **values)
    with pytest.raises(UserError, match=re.escape(f"{file}: {message}")):
        load_clip(folder)


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_what_is_no_preprocessor_file(folder, kind):
    replace_by(folder / "preprocessor_config.json", kind)
    with pytest.raises(UserError, match="preprocessor_config.json is"):
        load_clip(folder)


def test_settings_tell_what_changes_numbers():
    clip = random_clip()
    text = dataclasses.replace(clip.config.text, activation="gelu")
    others = [
        dataclasses.replace(clip, config=dataclasses.replace(clip.config, text=text)),
        dataclasses.replace(clip, normalize=Normalizer(std=(1.0, 1.0, 1.0))),
    ]
    assert random_clip().settings() == clip.settings()
    assert len({clip.settings(), *(other.settings() for other in others)}) == 3


def test_captions_are_cut_where_the_tower_ends(folder):
    change_json(folder / "tokenizer_config.json", model_max_length=10**30)
    with pytest.warns(UserWarning, match="of which the model reads 24"):
        assert load_clip(folder).tokenize(["a cat " * 20]).shape == (1, 24)


def test_weights_go_where_the_mesh_says(folder):
    mesh = host_mesh()
    assert load_clip(folder, mesh=mesh).mesh == mesh


def test_round_trip(tmp_path):
    clip = random_clip()
    save_clip(clip, tmp_path)
    found = load_clip(tmp_path)
    assert (found.config, found.normalize) == (clip.config, clip.normalize)
    assert found.tokenize(["a cat"]).tolist() == clip.tokenize(["a cat"]).tolist()
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, np.asarray(b).astype(np.float16)),
        found.params,
        clip.params,
    )


def test_what_does_not_fit_leaves_the_folder_as_it_was(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    clip = random_clip()
    clip.params["visual_projection"]["kernel"] = jnp.full((12, 8), 1e6)
    with pytest.raises(UserError, match="visual_projection/kernel holds numbers that are not fin"):
        save_clip(clip, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_other_files_stay(folder):
    (folder / "README.md").write_text("mine")
    save_clip(random_clip(), folder)
    assert (folder / "README.md").read_text() == "mine"
    assert not list(folder.glob(".unfinished-*"))
