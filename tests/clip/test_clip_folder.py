"""Where a CLIP is looked for, and what of a repository is fetched."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from dsd_jax.clip.clip_folder import BUNDLED, find
from dsd_jax.clip.clip_loading import load_clip
from dsd_jax.errors import UserError

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
    assert find("tiny-clip") == BUNDLED


def test_a_folder(folder):
    assert find(folder) == folder


def test_nothing_of_that_name():
    with pytest.raises(
        UserError, match="There is no CLIP at 'tiny'; expected \"tiny-clip\", a fol"
    ):
        find("tiny")


def test_a_diffusion_model():
    with pytest.raises(UserError, match="is a diffusion pipeline and no CLIP"):
        find(BUNDLED.parent / "tiny")


def test_a_folder_without_a_model(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="is no CLIP: expected a folder with .* found notes.txt"):
        find(tmp_path)


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
        find("openai/clip")
