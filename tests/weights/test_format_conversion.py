"""Models in the other form: the same numbers in the same types, for us and for PyTorch."""

import json
import shutil
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.numpy import load_file, save_file

from dsd_jax.errors import UserError
from dsd_jax.models.components import UNET
from dsd_jax.models.params import weights_digest
from dsd_jax.weights.format_conversion import convert_model, format_of
from dsd_jax.weights.model_folder import BUNDLED
from dsd_jax.weights.model_loading import load
from tests.files import replace_by
from tests.synthetic import torch_shapes, write_zeros

ELEMENTS = ("unet", "vae", "text_encoder")
PROGRAM = """
import sys
from pathlib import Path
from dsd_jax.weights.format_conversion import convert_model

def kilobytes(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

before = kilobytes("VmRSS")
convert_model(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
print(1024 * (kilobytes("VmHWM") - before))
"""


@pytest.fixture
def source(golden_folder, tmp_path):
    """A copy of tiny-sd21, whose VAE has old names."""
    ignored = shutil.ignore_patterns("*.npz", "lora")
    return shutil.copytree(golden_folder("tiny-sd21"), tmp_path / "source", ignore=ignored)


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.glob("**/*") if file.is_file())


def test_there_and_back(source, tmp_path):
    there, back = tmp_path / "there", tmp_path / "deep" / "back"
    there.mkdir()  # an empty folder is as good as none
    done = convert_model(source, there, "msgpack")
    assert convert_model(there, back, "safetensors") == done
    assert done.dtypes == ("float16",) and done.left_out == ()
    assert format_of(source) == format_of(back) == "safetensors" and format_of(there) == "msgpack"
    expected = load(source)
    assert done.tensors == len(jax.tree.leaves(expected.params))
    for folder in (there, back):
        model = load(folder)
        assert weights_digest(model.params) == weights_digest(expected.params)
        assert (model.unet, model.vae, model.text) == (expected.unet, expected.vae, expected.text)
        assert model.schedule == expected.schedule
    flax = {f"{part}/diffusion_flax_model.msgpack" for part in ("unet", "vae")}
    flax |= {"text_encoder/flax_model.msgpack"}
    small = {name for name in files(source) if not name.endswith(".safetensors")}
    assert set(files(there)) == small | flax and files(back) == files(source)
    for name in small:
        if name != "model_index.json":
            assert (back / name).read_bytes() == (source / name).read_bytes()
    assert not list(tmp_path.glob(".unfinished*"))


def test_the_bundled_model_comes_back_byte_for_byte(tmp_path):
    convert_model(BUNDLED, tmp_path / "there", "msgpack")
    convert_model(tmp_path / "there", tmp_path / "back", "safetensors")
    assert files(tmp_path / "back") == files(BUNDLED)
    for name in files(BUNDLED):
        assert (tmp_path / "back" / name).read_bytes() == (BUNDLED / name).read_bytes(), name


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("form", ["msgpack", "safetensors"])
def test_types_of_numbers_are_kept(source, tmp_path, dtype, form):
    """Each tensor its own: some files mix them."""
    file = source / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    odd = "conv_in.weight"
    tensors[odd] = np.ascontiguousarray(tensors[odd].astype(dtype))
    save_file(tensors, file)
    done = convert_model(source, tmp_path / "a", form)
    assert set(done.dtypes) == {"float16", np.dtype(dtype).name}
    convert_model(tmp_path / "a", tmp_path / "b", "safetensors")
    again = load_file(tmp_path / "b" / "unet" / file.name)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)


def test_pytorch_loads_what_was_flax(source, tmp_path):
    """Also where the configs name Flax's classes, as Flax diffusers wrote them."""
    convert_model(source, tmp_path / "flax", "msgpack")
    for name in ("model_index.json", *(f"{part}/config.json" for part in ("unet", "vae"))):
        file = tmp_path / "flax" / name
        text = file.read_text()
        for plain in ("UNet2D", "AutoencoderKL", "CLIPTextModel", "PNDMScheduler", "StableDiff"):
            text = text.replace(f'"{plain}', f'"Flax{plain}')
        file.write_text(text)
    convert_model(tmp_path / "flax", tmp_path / "torch", "safetensors")
    ours, theirs = (
        StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
        for folder in (tmp_path / "torch", source)
    )
    for part in ELEMENTS:
        expected = getattr(theirs, part).state_dict()
        found = getattr(ours, part).state_dict()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name


def test_other_parts_of_a_pipeline(source, tmp_path):
    """Small ones come along; those with weights are left behind and taken out of the index."""
    for name in ("safety_checker/model.safetensors", "safety_checker/config.json",
                 "feature_extractor/preprocessor_config.json", "LICENSE", ".cache/x.json",
                 "v1-5.ckpt", "samples/a.json"):  # fmt: skip
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}")
    index = json.loads((source / "model_index.json").read_text())
    parts = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
             "feature_extractor": ["transformers", "CLIPImageProcessor"]}  # fmt: skip
    (source / "model_index.json").write_text(json.dumps(index | parts))
    done = convert_model(source, tmp_path / "a", "msgpack")
    assert done.left_out == ("safety_checker",)
    small = set(files(tmp_path / "a"))
    assert {"feature_extractor/preprocessor_config.json", "LICENSE"} < small
    assert not [name for name in small if name.startswith(("safety", ".", "samples", "v1-5"))]
    found = json.loads((tmp_path / "a" / "model_index.json").read_text())
    assert found == index | parts | {"safety_checker": [None, None]}


def test_weights_that_do_not_fit(source, tmp_path):
    file = source / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.bias"]
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"unet: 1 missing\n  - conv_in.bias"):
        convert_model(source, tmp_path / "a", "msgpack")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source"]


def test_nothing_is_left_of_a_failure(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dsd_jax.tensor_files.msgpack_file.write", full)
    with pytest.raises(UserError, match=r"a cannot be written \(No space left on device\)"):
        convert_model(source, tmp_path / "a", "msgpack")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(("form", "times"), [("safetensors", 1.7), ("msgpack", 4)])
def test_memory(source, tmp_path, form, times):
    """The largest component and little more; as msgpack, which Flax makes in memory, 3.5 times."""
    file = source / "unet" / "config.json"
    config = json.loads(file.read_text()) | {"block_out_channels": [128, 256, 512, 512]}
    config |= {"norm_num_groups": 32, "attention_head_dim": 8}
    file.write_text(json.dumps(config))
    shapes = torch_shapes(UNET, config)
    weights_file = source / "unet" / "diffusion_pytorch_model.safetensors"
    write_zeros(weights_file, shapes)
    command = [sys.executable, "-c", PROGRAM, source, tmp_path / "a", form]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size = weights_file.stat().st_size
    assert size > 250e6 and int(done.stdout) < times * size, (done.stdout, size)


@pytest.mark.parametrize("kind", ["fifo", "link", "loop"])
@pytest.mark.parametrize(
    "name", ["tokenizer/vocab.json", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_small_files_that_can_not_be_read(tmp_path, name, kind):
    """They are not left out in silence."""
    shutil.copytree(BUNDLED, tmp_path / "source")
    replace_by(tmp_path / "source" / name, kind)
    with pytest.raises(UserError, match=f"{name} (is no regular file|is missing|can't be read)"):
        convert_model(tmp_path / "source", tmp_path / "target", "msgpack")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source"]
