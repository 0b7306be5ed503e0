"""Every form in which a model may lie in a folder loads to the same parameters."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import load_file

from dsd_jax.errors import UserError
from dsd_jax.models.params import weights_digest
from dsd_jax.weights import model_loading
from dsd_jax.weights.model_loading import load

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def rename_all(tensors: dict, pattern: str, new: str) -> None:
    for name in [name for name in tensors if re.search(pattern, name)]:
        tensors[re.sub(pattern, new, name)] = tensors.pop(name)


def key_of(component: str) -> str:
    return {"text_encoder": "text"}.get(component, component)


@pytest.mark.parametrize("name", ["tiny-sd15", "tiny-sd21"])
def test_golden_loads(golden_folder, name):
    model = load(golden_folder(name))
    assert model.image_size == 128
    assert model.tokenizer.pad_token_id == {"tiny-sd15": 49407, "tiny-sd21": 0}[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype(jnp.float32)}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model.params))


def test_leaves_are_transposed_as_flax_wants_them(golden_folder, model):
    unet = load_file(golden_folder("tiny-sd15") / "unet" / "diffusion_pytorch_model.safetensors")
    text = load_file(golden_folder("tiny-sd15") / "text_encoder" / "model.safetensors")
    block = model.params["unet"]["down_blocks_0"]
    layer = block["attentions_0"]["transformer_blocks_0"]
    np.testing.assert_array_equal(
        block["resnets_0"]["conv1"]["kernel"],
        unet["down_blocks.0.resnets.0.conv1.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        layer["attn2"]["to_out_0"]["kernel"],
        unet["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.weight"].T,
    )
    np.testing.assert_array_equal(
        layer["norm3"]["scale"],
        unet["down_blocks.0.attentions.0.transformer_blocks.0.norm3.weight"],
    )
    np.testing.assert_array_equal(
        model.params["text"]["text_model"]["embeddings"]["token_embedding"]["embedding"],
        text["text_model.embeddings.token_embedding.weight"],
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_is_that_of_every_leaf(golden_folder, model, dtype):
    params = load(golden_folder("tiny-sd15"), dtype=dtype).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, np.asarray(b).astype(dtype)),
        params,
        model.params,
    )


def test_the_device_chooses_the_dtype_where_it_is_auto(golden_folder, monkeypatch):
    monkeypatch.setattr(model_loading, "fast_dtype", lambda: "float16")
    assert load(golden_folder("tiny-sd15"), dtype="auto").dtype == jnp.float16


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wider_types_on_disk(folder, digest, dtype):
    folder.change("unet", lambda t: t.update({k: v.astype(dtype) for k, v in t.items()}))
    assert weights_digest(load(folder.path).params) == digest


def test_bfloat16_on_disk(folder, model):
    folder.change(
        "unet", lambda t: t.update({k: v.astype(ml_dtypes.bfloat16) for k, v in t.items()})
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, np.asarray(b).astype(ml_dtypes.bfloat16)),
        load(folder.path).params["unet"],
        model.params["unet"],
    )


def test_new_vae_names(folder, digest):
    def change(tensors):
        for new, old in OLD.items():
            rename_all(tensors, rf"\.{old}\.", f".{new}.")

    assert any(".query." in name for name in folder.tensors("vae"))
    folder.change("vae", change)
    assert not any(".query." in name for name in folder.tensors("vae"))
    assert weights_digest(load(folder.path).params) == digest


def test_old_vae_attention_as_convolutions(folder, digest):
    def change(tensors):
        for name in tensors:
            if re.search(r"\.(query|key|value|proj_attn)\.weight", name):
                tensors[name] = tensors[name][:, :, None, None]

    folder.change("vae", change)
    assert weights_digest(load(folder.path).params) == digest


def test_text_encoder_without_prefix(folder, digest):
    folder.change("text_encoder", lambda t: rename_all(t, r"^text_model\.", ""))
    assert weights_digest(load(folder.path).params) == digest


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_position_ids_are_ignored(folder, digest, prefix):
    ids = np.arange(77)[None]
    folder.change("text_encoder", lambda t: t.update({f"{prefix}embeddings.position_ids": ids}))
    assert weights_digest(load(folder.path).params) == digest


@pytest.mark.parametrize(
    "name", ["safety_checker.concept_embeds", "model_ema.decay", "feature_extractor.mean"]
)
def test_unused_parts_are_ignored(folder, digest, name):
    folder.change("unet", lambda t: t.update({name: np.ones(3, np.float32)}))
    assert weights_digest(load(folder.path).params) == digest


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
def test_variant_where_the_plain_file_is_missing(folder, digest, variant):
    file = folder.file("unet")
    file.rename(file.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    assert weights_digest(load(folder.path).params) == digest


def test_plain_file_goes_before_variants_and_msgpack(folder, digest):
    folder.file("unet").with_name("diffusion_pytorch_model.fp16.safetensors").write_text("no")
    folder.flax_file("unet").write_text("no")
    folder.file("unet").with_suffix(".bin").write_text("no")
    assert weights_digest(load(folder.path).params) == digest


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_sharded_with_index(folder, digest, variant):
    shard(folder, "unet", variant)
    assert weights_digest(load(folder.path).params) == digest


def shard(folder, component: str, variant: str = "") -> list:
    """Splits the component's safetensors into three and writes their index."""
    tensors = folder.tensors(component)
    stem = folder.file(component).stem
    names = sorted(tensors)
    table = {}
    for i in range(3):
        file = f"{stem}{variant}-0000{i + 1}-of-00003.safetensors"
        folder.write(component, {name: tensors[name] for name in names[i::3]}, file)
        table |= dict.fromkeys(names[i::3], file)
    folder.file(component).unlink()
    index = folder.file(component).with_name(f"{stem}.safetensors.index{variant}.json")
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": table}))
    return sorted(set(table.values()))


def test_missing_shard(folder):
    second = shard(folder, "unet")[1]
    folder.file("unet").with_name(second).unlink()
    with pytest.raises(UserError, match=rf"{second} is missing, though .*index\.json names it"):
        load(folder.path)


def test_flax_msgpack(folder, model, digest):
    for component in ("unet", "vae", "text_encoder"):
        folder.to_flax(component, model.params[key_of(component)])
    assert weights_digest(load(folder.path).params) == digest


def test_flax_msgpack_with_old_names_in_the_unet(folder, model, digest):
    def rename(path):
        for new, old in OLD.items():
            path = path.replace(f"/{new.replace('.', '_')}/", f"/{old}/")
        return path

    assert "query" in rename("mid_block/attentions_0/transformer_blocks_0/attn1/to_q/kernel")
    folder.to_flax("unet", model.params["unet"], rename)
    assert weights_digest(load(folder.path).params) == digest


def test_flax_msgpack_with_new_names_in_the_vae(folder, model, digest):
    def rename(path):
        for new, old in OLD.items():
            path = path.replace(f"/{old}/", f"/{new.replace('.', '_')}/")
        return path

    folder.to_flax("vae", model.params["vae"], rename)
    assert weights_digest(load(folder.path).params) == digest


def test_flax_msgpack_in_bfloat16(folder, model):
    params = jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.bfloat16), model.params["unet"])
    folder.to_flax("unet", params)
    loaded = load(folder.path, dtype=jnp.bfloat16).params["unet"]
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_sharded_flax_msgpack(folder, model, digest):
    flat = traverse_util.flatten_dict(jax.tree.map(np.asarray, model.params["text"]), sep="/")
    table = {}
    for i in range(2):
        file = f"flax_model-0000{i + 1}-of-00002.msgpack"
        names = sorted(flat)[i::2]
        part = traverse_util.unflatten_dict({name: flat[name] for name in names}, sep="/")
        folder.file("text_encoder").with_name(file).write_bytes(
            serialization.msgpack_serialize(part)
        )
        table |= dict.fromkeys(names, file)
    folder.file("text_encoder").unlink()
    index = folder.path / "text_encoder" / "flax_model.msgpack.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    assert weights_digest(load(folder.path).params) == digest


def test_model_index_may_be_missing(folder, digest):
    (folder.path / "model_index.json").unlink()
    shutil.copytree(folder.path / "unet", folder.path / "safety_checker")
    assert weights_digest(load(folder.path).params) == digest


def test_loaded_parameters_do_not_hang_on_the_file(folder, digest):
    folder.change("unet", lambda t: t.update({k: v.astype(np.float32) for k, v in t.items()}))
    params = load(folder.path).params
    with folder.file("unet").open("r+b") as stream:
        stream.write(bytes(folder.file("unet").stat().st_size))
    assert weights_digest(params) == digest


def test_dtype_must_be_a_float(golden_folder):
    with pytest.raises(UserError, match="int32 can't hold weights; use float32"):
        load(golden_folder("tiny-sd15"), dtype=jnp.int32)


def test_nan_and_infinite_weights_are_all_named(folder):
    def nan(tensors):
        tensors["conv_out.bias"][1] = np.nan
        tensors["mid_block.resnets.0.conv1.weight"][0, 0, 0, 0] = -np.inf

    folder.change("unet", nan)
    folder.change("vae", lambda t: t["quant_conv.weight"].fill(np.inf))
    with pytest.raises(UserError, match="3 tensors in .* hold NaN or infinite numbers") as error:
        load(folder.path)
    for name in ("conv_out.bias", "mid_block.resnets.0.conv1.weight", "vae: quant_conv.weight"):
        assert name in str(error.value)


def test_numbers_too_large_for_the_dtype_are_named(folder):
    folder.change("vae", lambda t: t.update({"quant_conv.bias": np.full(8, 1e6, np.float32)}))
    load(folder.path)
    with pytest.raises(UserError, match="float16") as error:
        load(folder.path, dtype=jnp.float16)
    assert "quant_conv.bias" in str(error.value)
