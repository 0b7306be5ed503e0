"""What we write: the same again for us, and for PyTorch diffusers, whatever happens meanwhile."""

import json
import os
import stat
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from flax import serialization
from safetensors import safe_open
from transformers import CLIPTextModel

from dsd_jax.errors import UserError
from dsd_jax.models.params import canonical_name, flatten, torch_axes, weights_digest
from dsd_jax.weights.model_folder import BUNDLED
from dsd_jax.weights.model_loading import load
from dsd_jax.weights.model_saving import save
from dsd_jax.weights.model_saving import save as save_function
from tests.random_model import random_model
from tests.weights.conftest import FILES, FLAX_FILES

save_module = __import__("sys").modules[save_function.__module__]


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(model, folder)
    return folder


@pytest.mark.parametrize("format", ["safetensors", "msgpack"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_round_trip(model, digest, tmp_path, format, dtype):
    save(model, tmp_path / "a" / "b", dtype=dtype, format=format)
    again = load(tmp_path / "a" / "b")
    assert weights_digest(again.params) == digest
    for field in ("unet", "vae", "text", "schedule", "image_size"):
        assert getattr(again, field) == getattr(model, field)
    expected = FILES if format == "safetensors" else FLAX_FILES
    for part, name in expected.items():
        files = {file.name for file in (tmp_path / "a" / "b" / part).iterdir()}
        assert files == {name, "config.json"}


@pytest.mark.parametrize("format", ["safetensors", "msgpack"])
def test_round_trip_of_bfloat16(model, tmp_path, format):
    save(model, tmp_path, dtype=jnp.bfloat16, format=format)
    half = jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.bfloat16), model.params)
    assert weights_digest(load(tmp_path, dtype=jnp.bfloat16).params) == weights_digest(half)


def test_half_of_another_form_in_between(model, digest, tmp_path):
    save(model, tmp_path / "one", format="msgpack")
    save(load(tmp_path / "one"), tmp_path / "two", format="safetensors")
    save(load(tmp_path / "two"), tmp_path / "three", format="msgpack")
    assert weights_digest(load(tmp_path / "three").params) == digest


def test_sd21_round_trip(golden_folder, tmp_path):
    model = load(golden_folder("tiny-sd21"))
    save(model, tmp_path)
    again = load(tmp_path)
    assert weights_digest(again.params) == weights_digest(model.params)
    assert (again.unet, again.vae, again.text) == (model.unet, model.vae, model.text)
    assert again.tokenizer.pad_token_id == 0


def test_flax_reads_our_msgpack_and_we_read_its_own(model, tmp_path):
    save(model, tmp_path, dtype=jnp.float32, format="msgpack")
    content = (tmp_path / "unet" / FLAX_FILES["unet"]).read_bytes()
    tree = serialization.msgpack_restore(content)
    jax.tree.map(np.testing.assert_array_equal, tree, model.params["unet"])


@pytest.mark.parametrize(
    ("part", "network"),
    [("unet", UNet2DConditionModel), ("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)],
)
@pytest.mark.parametrize("name", ["tiny-sd15", "tiny-sd21"])
def test_pytorch_reads_the_same_numbers(golden_folder, tmp_path, name, part, network):
    save(load(golden_folder(name)), tmp_path)
    original = network.from_pretrained(golden_folder(name), subfolder=part).state_dict()
    ours, report = network.from_pretrained(tmp_path, subfolder=part, output_loading_info=True)
    assert not any(report.values())
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in original.items()
    }
    for key, value in ours.state_dict().items():
        assert torch.equal(value.float(), original[key].float()), key


def test_the_bundled_model_loads_in_pytorch():
    params = load("tiny").params
    pipeline = StableDiffusionPipeline.from_pretrained(BUNDLED, dtype=torch.float32)
    for network, key in ((pipeline.unet, "unet"), (pipeline.vae, "vae")):
        ours = {
            canonical_name(path): np.asarray(leaf).transpose(torch_axes(path, leaf.ndim))
            for path, leaf in flatten(params[key]).items()
        }
        theirs = network.state_dict()
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_pytorch_computes_the_same_from_its_config(golden_folder, saved):
    """The config we write loses nothing: the same network as from the original's."""
    rng = torch.Generator().manual_seed(0)
    latents, states = (
        torch.randn(1, 4, 16, 16, generator=rng),
        torch.randn(1, 77, 32, generator=rng),
    )
    with torch.no_grad():
        outputs = [
            UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", torch_dtype=torch.float32
            )(latents, 7, states).sample
            for folder in (golden_folder("tiny-sd15"), saved)
        ]
    assert torch.equal(*outputs)


def test_the_pipeline_of_pytorch_loads_and_draws(saved):
    pipeline = StableDiffusionPipeline.from_pretrained(saved, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a cat", num_inference_steps=2, output_type="np").images
    assert picture.shape == (1, 128, 128, 3) and np.isfinite(picture).all()


def test_names_are_those_of_current_diffusers(saved):
    with safe_open(saved / "vae" / FILES["vae"], "np") as file:
        assert "encoder.mid_block.attentions.0.to_out.0.weight" in file.keys()  # noqa: SIM118
        assert file.metadata() == {"format": "pt"}


def test_files_have_the_usual_permissions(saved):
    modes = {stat.S_IMODE(file.stat().st_mode) for file in saved.rglob("*") if file.is_file()}
    assert len(modes) == 1, modes
    assert modes.pop() & stat.S_IRUSR


def test_other_files_stay_and_old_weights_go(model, digest, tmp_path):
    (tmp_path / "README.md").write_text("a model card")
    save(model, tmp_path, format="msgpack")
    save(model, tmp_path, format="safetensors")
    assert not (tmp_path / "unet" / FLAX_FILES["unet"]).exists()
    assert (tmp_path / "README.md").read_text() == "a model card"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "README.md", "model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae",
    ]  # fmt: skip
    assert weights_digest(load(tmp_path).params) == digest


def snapshot(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("calls", [0, 1, 5, 11])
def test_interrupted_while_renaming_nothing_has_changed(model, tmp_path, monkeypatch, calls):
    save(model, tmp_path, format="msgpack")
    before = snapshot(tmp_path)
    real, count = os.replace, iter(range(calls))

    def fail_once(source, target):
        if next(count, None) is None and not failed:
            failed.append(True)
            raise KeyboardInterrupt
        real(source, target)

    failed = []
    monkeypatch.setattr(save_module.os, "replace", fail_once)
    with pytest.raises(KeyboardInterrupt):
        save(model, tmp_path)
    assert snapshot(tmp_path) == before


def test_interrupted_while_writing_nothing_has_changed(model, tmp_path):
    save(model, tmp_path, format="msgpack")
    before = snapshot(tmp_path)
    params = jax.tree.map(lambda leaf: leaf, model.params)
    params["text"]["text_model"]["final_layer_norm"]["bias"] = np.full(32, 1e6, np.float32)
    broken = type(model)(**{**vars(model), "params": params})
    with pytest.raises(UserError, match="text_encoder: text_model/final_layer_norm/bias .*float16"):
        save(broken, tmp_path)
    assert snapshot(tmp_path) == before


def test_unknown_format(model, tmp_path):
    with pytest.raises(UserError, match="'pickle' is unknown; use 'safetensors' or 'msgpack'"):
        save(model, tmp_path, format="pickle")


def test_model_index(saved):
    index = json.loads((saved / "model_index.json").read_text())
    scheduler = json.loads((saved / "scheduler" / "scheduler_config.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["scheduler"] == ["diffusers", scheduler["_class_name"]]


@pytest.mark.parametrize("format", ["safetensors", "msgpack"])
@pytest.mark.parametrize("zero_empty", [True, False])
def test_sdxl_round_trip(tmp_path, format, zero_empty):
    model = replace(random_model(xl=True), zero_empty=zero_empty)
    save(model, tmp_path, dtype=jnp.float32, format=format)
    again = load(tmp_path)
    assert weights_digest(again.params) == weights_digest(model.params)
    for field in ("unet", "vae", "text", "text_2", "schedule", "image_size", "zero_empty"):
        assert getattr(again, field) == getattr(model, field)
    assert again.text_identity()[1] == model.text_identity()[1]


def test_the_pipeline_of_pytorch_draws_with_our_sdxl(tmp_path):
    save(random_model(xl=True), tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    assert isinstance(pipeline, StableDiffusionXLPipeline)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a cat", num_inference_steps=2, output_type="np").images
    assert picture.shape == (1, 8, 8, 3) and np.isfinite(picture).all()
    assert pipeline.config.force_zeros_for_empty_prompt


def test_sdxl_parts_of_another_model_are_refused(tmp_path):
    model = random_model(xl=True)
    for folder, change, message in (
        ("unet", {"projection_class_embeddings_input_dim": 36}, "width of pooled text is 12 but"),
        ("unet", {"cross_attention_dim": 12}, "is 12 but the text_encoder's and text_encoder_2's"),
        ("text_encoder_2", {"vocab_size": 900}, "The tokenizer_2 in .* has 908 tokens but the"),
        ("text_encoder_2", {"max_position_embeddings": 70}, "model_max_length is 77 but the text"),
        ("text_encoder_2", {"architectures": ["CLIPTextModel"]}, "expected CLIPTextModelWith"),
    ):
        save(model, tmp_path)
        file = tmp_path / folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        with pytest.raises(UserError, match=message):
            load(tmp_path)


def test_nothing_stays_of_an_sdxl(model, digest, tmp_path):
    save(random_model(xl=True), tmp_path)
    save(model, tmp_path)
    assert weights_digest(load(tmp_path).params) == digest
