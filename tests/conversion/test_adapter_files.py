"""Adapters on disk; `tests/parity/test_adapters.py` has PyTorch read and write them."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dsd_jax.conversion.adapter import to_prompts
from dsd_jax.conversion.adapter_files import read_adapter
from dsd_jax.errors import UserError
from dsd_jax.prompts.lora_files import write_authors, write_diffusers
from tests.files import replace_by

PATH = "mid_block.attentions.0.transformer_blocks.0.attn1"
A, B = f"unet.{PATH}.to_q.lora_A.weight", f"unet.{PATH}.to_q.lora_B.weight"
TENSORS = {A: np.ones((2, 3), np.float32), B: np.ones((5, 2), np.float32)}


def up(file):
    return np.asarray(to_prompts(read_adapter(file))["lora"][PATH]["to_q"]["up"])


@pytest.fixture
def lora():
    rng = np.random.default_rng(0)
    shapes = {"to_q": (3, 5), "to_out": (5, 5)}
    return {
        PATH: {
            name: {"down": rng.normal(size=(inputs, 2)), "up": rng.normal(size=(2, outputs))}
            for name, (inputs, outputs) in shapes.items()
        }
    }


def test_what_we_write(tmp_path, lora):
    write_diffusers(tmp_path / "a" / "b", lora)
    (file,) = (tmp_path / "a" / "b").iterdir()
    assert file.name == "pytorch_lora_weights.safetensors"
    tensors = load_file(file)
    assert set(tensors) == {A, B, *(x.replace("to_q", "to_out.0") for x in (A, B))}
    np.testing.assert_allclose(tensors[A], lora[PATH]["to_q"]["down"].T, rtol=1e-6)
    np.testing.assert_allclose(tensors[B], lora[PATH]["to_q"]["up"].T, rtol=1e-6)
    again = to_prompts(read_adapter(file))["lora"][PATH]
    assert set(again) == set(lora[PATH])
    for name, update in lora[PATH].items():
        for part, array in update.items():
            np.testing.assert_allclose(again[name][part], array, rtol=1e-6)


def test_what_we_write_for_the_authors(tmp_path, lora):
    write_authors(tmp_path / "a" / "b", lora)
    (file,) = (tmp_path / "a" / "b").iterdir()
    tensors = torch.load(file, weights_only=True)
    assert file.name == "pytorch_model.bin" and len(tensors) == 4
    for name, update in lora[PATH].items():
        for part, array in update.items():
            tensor = tensors[f"{PATH}.processor.{name}_lora.{part}.weight"]
            np.testing.assert_allclose(tensor.numpy(), array.T, rtol=1e-6)


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_alpha_in_the_metadata(tmp_path, prefix):
    config = {f"{prefix}r": 2, f"{prefix}lora_alpha": 3, "text_encoder.lora_alpha": 9}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config)}
    save_file(TENSORS, tmp_path / "x.safetensors", metadata)
    np.testing.assert_array_equal(up(tmp_path / "x.safetensors"), np.full((2, 5), 1.5))


def test_alpha_in_pefts_config(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 1}))
    for name, value in (("adapter_model", 0.5), ("pytorch_lora_weights", 1)):
        save_file(TENSORS, tmp_path / f"{name}.safetensors")
        assert (up(tmp_path / f"{name}.safetensors") == value).all()
    tensors = {name: torch.from_numpy(tensor) for name, tensor in TENSORS.items()}
    for name in ("adapter_model.bin", "mine.bin"):
        torch.save(tensors, tmp_path / name)
        assert (up(tmp_path / name) == 0.5).all()


@pytest.mark.parametrize("prefix", ["unet.", "base_model.model.", ""])
def test_alpha_in_pefts_config_beside_a_file_of_another_name(tmp_path, prefix, capsys):
    file = tmp_path / "my_style.safetensors"
    save_file({name.replace("unet.", prefix): TENSORS[name] for name in TENSORS}, file)
    assert (up(file) == 1).all()
    said = "no adapter_config.json beside it, which tells the scale; it is taken as 1"
    assert (said in capsys.readouterr().err) == (prefix != "unet.")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 8}))
    assert (up(file) == 4).all() and "taken as 1" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "adapter_config.json holds a list, expected a JSON object"),
        ("[" * 50_000, "adapter_config.json is nested too deep"),
        ('{"lora_alpha": ' + "9" * 5000 + "}", "adapter_config.json is not JSON"),
        ('{"lora_alpha": NaN}', "NaN is no number"),
        ('{"use_dora": true}', "adapter_config.json: use_dora is true"),
        ('{"alpha_pattern": {"(.*)*x": 1}}', "adapter_config.json: alpha_pattern has"),
        (None, "adapter_config.json is missing, a link to"),
    ],
)
def test_a_config_beside_it_that_is_none(tmp_path, content, message):
    file, config = tmp_path / "my_style.safetensors", tmp_path / "adapter_config.json"
    save_file(TENSORS, file)
    config.symlink_to("nowhere") if content is None else config.write_text(content)
    with pytest.raises(UserError, match=message):
        read_adapter(file)


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "loop"])
@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_files_that_are_none(tmp_path, name, kind):
    (tmp_path / name).touch()
    replace_by(tmp_path / name, kind)
    with pytest.raises(UserError, match=f"{name} (is no regular|is a folder|is missing|can't be)"):
        read_adapter(tmp_path / name)


@pytest.mark.parametrize("text", ["{", "[1]", "1"])
def test_metadata_that_is_damaged(tmp_path, text):
    save_file(TENSORS, tmp_path / "x.safetensors", {"lora_adapter_metadata": text})
    with pytest.raises(UserError, match="x.safetensors: its metadata .* (JSON|object)"):
        read_adapter(tmp_path / "x.safetensors")


def test_other_metadata(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors", {"ss_network_dim": "4"})
    assert (up(tmp_path / "x.safetensors") == 1).all()


def test_damaged_safetensors(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file(TENSORS, file)
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match="x.safetensors is cut off"):
        read_adapter(file)
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="x.safetensors is a PyTorch pickle"):
        read_adapter(file)


def test_types_of_numbers(tmp_path):
    save_file({A: TENSORS[A].astype(np.int8), B: TENSORS[B]}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="lora_A.weight is of int8, expected one of float16"):
        read_adapter(tmp_path / "x.safetensors")
