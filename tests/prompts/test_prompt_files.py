"""Prompts are read as they were written, or refused in one sentence."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsd_jax.errors import UserError
from dsd_jax.prompts.prompt_files import read_metadata, read_prompts, write_prompts
from dsd_jax.prompts.prompt_params import init_lora, init_tokens
from dsd_jax.tensor_files import safetensors_file
from tests.files import replace_by
from tests.random_model import random_model

ABOUT = {"recipe": {"methods": ["dsd"], "rank": 4}, "timesteps": [9, 509], "layers": ["a"]}


@pytest.fixture(scope="module")
def unet():
    return random_model().unet


@pytest.fixture(scope="module")
def prompts(unet):
    """Return prompts of all kinds with random numbers."""
    lora = init_lora(unet, jax.random.key(0), rank=2)
    path = next(path for path in lora if path.endswith("attn2"))
    tree = {
        "lora": lora,
        "tokens": init_tokens(unet, jax.random.key(1), count=2),
        "weights": {"dsd": {"lse": {path: jnp.zeros(2)}, "timesteps": jnp.ones(4), "error": 0.5}},
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) + 0.25, tree)


@pytest.fixture
def folder(tmp_path, prompts):
    write_prompts(tmp_path / "run" / "prompts", prompts, ABOUT)
    return tmp_path / "run" / "prompts"


@pytest.mark.parametrize("kind", [str, lambda folder: folder])
def test_round_trip(folder, prompts, unet, kind):
    again = read_prompts(kind(folder), unet)
    assert jax.tree.structure(again) == jax.tree.structure(prompts)
    for one, other in zip(*map(jax.tree.leaves, (again, prompts)), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_array_equal(one, other)
    assert read_metadata(folder).stated() == ABOUT
    assert sorted(file.name for file in folder.iterdir()) == ["prompts.json", "prompts.safetensors"]


def test_trees_and_nothing(prompts, unet):
    assert read_prompts(None, unet) == {}
    jax.tree.map(np.testing.assert_array_equal, read_prompts(prompts, unet), prompts)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_tensors_of_others_are_not_overwritten(tmp_path, prompts, metadata):
    file = tmp_path / "prompts.safetensors"
    save_file({"mine": np.zeros(3)}, file, metadata=metadata)
    before = file.read_bytes()
    with pytest.raises(UserError, match="prompts.safetensors was not written by this program; mo"):
        write_prompts(tmp_path, prompts, ABOUT)
    assert file.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, prompts):
    (tmp_path / "prompts").write_text("mine")
    with pytest.raises(UserError, match="prompts/lora cannot be written to .Not a directory.; mak"):
        write_prompts(tmp_path / "prompts" / "lora", prompts, ABOUT)


def test_prompts_that_the_held_out_shots_refused(tmp_path, unet):
    write_prompts(tmp_path, {}, {"kept_step": 0})
    assert read_prompts(tmp_path, unet) == {}


def test_writing_again_replaces(folder, prompts, unet):
    write_prompts(folder, {"tokens": prompts["tokens"]}, {"method": "noise"})
    assert list(read_prompts(folder, unet)) == ["tokens"]
    assert read_metadata(folder).stated() == {"method": "noise"}


def test_missing(tmp_path, unet):
    with pytest.raises(UserError, match="nowhere holds no prompts: prompts.safetensors is missing"):
        read_prompts(tmp_path / "nowhere", unet)
    with pytest.raises(UserError, match="prompts.json is missing"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated(folder, unet, keep):
    file = folder / "prompts.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="prompts.safetensors is damaged: .*; train again or copy"):
        read_prompts(folder, unet)


def test_a_flipped_bit(folder, unet):
    file = folder / "prompts.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: its digest does not match; train again"):
        read_prompts(folder, unet)


def test_files_without_a_digest(folder, prompts, unet):
    """Files of earlier versions are read."""
    save_file(load_file(folder / "prompts.safetensors"), folder / "prompts.safetensors")
    again = read_prompts(folder, unet)
    jax.tree.map(np.testing.assert_array_equal, again, prompts)


def test_about_is_damaged(folder):
    (folder / "prompts.json").write_text("{")
    with pytest.raises(UserError, match="prompts.json is not JSON"):
        read_metadata(folder)


def test_numbers_that_are_not_finite(folder, prompts, unet):
    broken = jax.tree.map(lambda x: x * jnp.nan, prompts)
    write_prompts(folder, broken, ABOUT)
    with pytest.raises(UserError, match="is not a finite tensor"):
        read_prompts(folder, unet)


def test_a_file_of_something_else(folder, unet):
    write_prompts(folder, {"model": {"weight": np.zeros(2)}}, ABOUT)
    with pytest.raises(UserError, match="'model/weight' is not .* of lora, tokens, weights"):
        read_prompts(folder, unet)


def test_prompts_of_another_model(folder):
    other = random_model(block_out_channels=[12, 16]).unet
    with pytest.raises(UserError, match="trained for another model"):
        read_prompts(folder, other)


def test_about_is_readable_json(folder):
    assert json.loads((folder / "prompts.json").read_text()) == ABOUT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"prompts.json holds a list, expected a JSON object"),
        ("null", r"prompts.json holds a NoneType, expected a JSON object"),
        ("5", r"prompts.json holds a int, expected a JSON object"),
        ("[" * 100_000, "prompts.json is nested too deep"),
        ('{"seed": ' + "9" * 5000 + "}", "prompts.json is not JSON"),
        ('{"timesteps": 4}', "timesteps is 4, expected a list; expected what train or convert"),
        ('{"timesteps": [1000]}', "timesteps.0 is 1000, expected 999 or less"),
        ('{"recipe": {"methods": 5}}', "recipe.methods is 5, expected a list"),
        ('{"recipe": []}', "recipe is .*, expected an object with named fields"),
        ('{"weights_digest": ""}', "weights_digest is '', expected text of the form"),
        ('{"layers": "attn2"}', "layers is 'attn2', expected a list"),
        ('{"seed": -1}', "seed is -1, expected 0 or more"),
    ],
)
def test_about_that_is_something_else(folder, content, message):
    (folder / "prompts.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_metadata(folder)


def test_about_what_convert_writes(folder, prompts):
    write_prompts(folder, prompts, {"from": "lora.safetensors", "weights": None})
    about = read_metadata(folder)
    assert about.converted_from == "lora.safetensors"
    assert about.methods == () and about.timesteps is None and about.weights is None


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_types_of_floats(folder, prompts, unet, dtype):
    tensors = load_file(folder / "prompts.safetensors")
    exact = {name: np.round(tensor * 4) / 4 for name, tensor in tensors.items()}
    named = {name: np.asarray(tensor, dtype, order="C") for name, tensor in exact.items()}
    safetensors_file.write(folder / "prompts.safetensors", named)
    for leaf, expected in zip(
        jax.tree.leaves(read_prompts(folder, unet)), jax.tree.leaves(prompts), strict=True
    ):
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, np.round(expected * 4) / 4)


def write_header(folder, header, content: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text).to_bytes(8, "little")
    (folder / "prompts.safetensors").write_bytes(size + text + content)


def entry(begin: int, end: int, dtype: str = "F32", shape: tuple = (1,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "content", "message"),
    [
        ({"lora/a": entry(0, 4), "lora/a/b": entry(4, 8)}, bytes(8), "lies below another tensor"),
        ({"lora/a/b": entry(0, 4), "lora/a": entry(4, 8)}, bytes(8), "tensors lie below 'lora/a'"),
        ({"lora": entry(0, 4)}, bytes(4), "'lora' is not a finite tensor of lora"),
        ({"lora//a": entry(0, 4)}, bytes(4), "'lora//a' is not a finite tensor of lora"),
        ({"lora/a": entry(0, 1, "F8_E4M3")}, bytes(1), "is of F8_E4M3, expected one of F16, BF16"),
        ({"lora/a": entry(0, 8, "I64")}, bytes(8), "is of I64, expected one of F16, BF16"),
        ({"lora/a": entry(0, 4), "lora/b": entry(0, 4)}, bytes(4), "expected to begin at 4"),
        ({"lora/a": entry(4, 8)}, bytes(8), "is damaged: .*expected to begin at 0"),
        ({"lora/a": entry(0, 4, shape=(-1, -1))}, bytes(4), "is damaged: .*shape.0 is -1"),
        ({"lora/a": entry(0, 4)}, bytes(9), "is damaged: has 5 bytes behind its last tensor"),
        ({"__metadata__": {"digest": ""}, "lora/a": entry(0, 4)}, bytes(4), "digest does not"),
        (b"[" * 50_000, b"", "is damaged: .*nested too deep"),
        (b'{"lora/a": null}', b"", "is damaged: .*lora/a: it is None, expected an object"),
    ],
)
def test_tensors_that_are_none(folder, unet, header, content, message):
    write_header(folder, header, content)
    with pytest.raises(UserError, match=message):
        read_prompts(folder, unet)


@pytest.mark.parametrize("name", ["prompts.safetensors", "prompts.json"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "loop"])
def test_files_that_are_none(folder, unet, name, kind):
    replace_by(folder / name, kind)
    with pytest.raises(UserError, match=f"{name} (is no regular|is a folder|is missing|can't be)"):
        read_metadata(folder)
        read_prompts(folder, unet)


def test_prompts_of_another_model_are_named(folder):
    with pytest.raises(UserError, match=f"^{folder}: the prompts for .*another model"):
        read_prompts(folder, random_model(block_out_channels=[12, 16]).unet)
