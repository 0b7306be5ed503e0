"""Which files are chosen; and files that are damaged, or are not what their name says."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from dsd_jax.errors import UserError
from dsd_jax.models.components import TEXT, UNET
from dsd_jax.weights.component_files import choose, read_config, read_headers, shards
from dsd_jax.weights.model_loading import load
from tests.files import replace_by

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3438167540\n"
PAGE = "\n<!doctype html>\n<html><head><title>Sign in</title></head></html>"
STEM = "diffusion_pytorch_model"


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        load(path)
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    return text


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([f"{STEM}.safetensors", f"{STEM}.fp16.safetensors"], f"{STEM}.safetensors"),
        ([f"{STEM}.fp16.safetensors", "diffusion_flax_model.msgpack"], f"{STEM}.fp16.safetensors"),
        ([f"{STEM}.non_ema.safetensors", f"{STEM}.fp16.safetensors"], f"{STEM}.fp16.safetensors"),
        ([f"{STEM}.bin", "diffusion_flax_model.msgpack"], "diffusion_flax_model.msgpack"),
        ([f"{STEM}.safetensors.index.json", "x"], f"{STEM}.safetensors.index.json"),
        (
            [f"{STEM}.safetensors.index.fp16.json", f"{STEM}.fp16-00001-of-00002.safetensors"],
            f"{STEM}.safetensors.index.fp16.json",
        ),
    ],
)
def test_choice(names, chosen):
    assert choose(names, UNET, "unet") == chosen


def test_shards_of_an_index():
    names = [f"{STEM}.safetensors", f"{STEM}.bin", "config.json"]
    plain = [f"{STEM}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    fp16 = [f"{STEM}.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    new_fp16 = [f"{STEM}-0000{i}-of-00002.fp16.safetensors" for i in (1, 2)]
    everything = names + plain + fp16 + new_fp16
    assert shards(everything, f"{STEM}.safetensors.index.json") == plain
    assert shards(everything, f"{STEM}.safetensors.index.fp16.json") == new_fp16 + fp16


def test_only_a_pickle():
    with pytest.raises(UserError, match=r"only as a PyTorch pickle \(pytorch_model.bin\).*convert"):
        choose(["pytorch_model.bin", "config.json"], TEXT, "model/text_encoder")


def test_no_weights(folder):
    folder.file("vae").unlink()
    assert "holds no weights: expected diffusion_pytorch_model.safetensors" in refusal(folder.path)


def corrupt(folder, content: bytes | str, flax: bool = False):
    """Puts `content` where the UNet's weights were."""
    folder.file("unet").unlink()
    file = folder.flax_file("unet") if flax else folder.file("unet")
    file.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("flax", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a git-lfs pointer and not the weights; run `git lfs pull`"),
        (PAGE, "is a web page and not "),
        ("Not found", "is a text file and not "),
        ("", "is empty"),
        (b"PK\x03\x04\x14\x00\x08\x08archive/data.pkl" + bytes(100), "is a PyTorch pickle"),
        (b"\x00\x01\x02" * 300, "is not a "),
        (b"\xff" * 300, "is not a "),
        (b"\x93" * 300, "is not a "),
        (b"\x81\xa0" * 3000, "is not a "),
    ],
    ids=["lfs", "html", "text", "empty", "pickle", "binary", "ones", "arrays", "maps"],
)
def test_files_that_are_something_else(folder, content, message, flax):
    corrupt(folder, content, flax)
    text = refusal(folder.path)
    assert message in text
    assert "unet/diffusion_" in text


@pytest.mark.parametrize("kept", [5, 1000, 200_000, -1])
def test_truncated_safetensors(folder, kept):
    corrupt(folder, folder.file("unet").read_bytes()[:kept])
    text = refusal(folder.path)
    assert "is cut off: it has" in text if kept != 5 else "is not a safetensors file" in text


@pytest.mark.parametrize("kept", [5, 1000, 200_000, -1])
def test_truncated_msgpack(folder, model, kept):
    folder.to_flax("unet", model.params["unet"])
    folder.flax_file("unet").write_bytes(folder.flax_file("unet").read_bytes()[:kept])
    assert "is cut off after" in refusal(folder.path)


def test_bytes_after_the_end_of_msgpack(folder, model):
    folder.to_flax("unet", model.params["unet"])
    with folder.flax_file("unet").open("ab") as stream:
        stream.write(b"\x80")
    assert "is not a Flax checkpoint" in refusal(folder.path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"dtype"', b'"dtypf"'), (b'"shape":[', b'"shape":{'), (b'"F16"', b'"F32"')],
)
def test_damaged_safetensors_header(folder, old, new):
    content = folder.file("unet").read_bytes()
    assert old in content
    corrupt(folder, content.replace(old, new, 1))
    assert "has a damaged safetensors header" in refusal(folder.path)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_index_without_a_table(folder, content):
    file = folder.file("unet")
    file.rename(file.with_suffix(".safetensors.index.json")).write_text(content)
    assert "has no table 'weight_map'" in refusal(folder.path)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_missing_config(folder, component):
    (folder.path / component / "config.json").unlink()
    assert f"{component}/config.json is missing" in refusal(folder.path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list, expected a JSON object"),
        (POINTER, "is a git-lfs pointer"),
        ("\ud800", "is not JSON"),
    ],
)
def test_config_that_is_not_json(folder, content, message):
    file = folder.path / "unet" / "config.json"
    file.write_text(content, encoding="utf-8", errors="surrogatepass")
    text = refusal(folder.path)
    assert message in text and str(file) in text


@pytest.mark.parametrize(
    ("component", "change", "message"),
    [
        ("unet", {"_class_name": "AutoencoderKL"}, "the class AutoencoderKL, expected UNet2D"),
        ("vae", {"_class_name": "VQModel"}, "describes the class VQModel, expected AutoencoderKL"),
        ("text_encoder", {"architectures": ["T5EncoderModel"]}, "the class T5EncoderModel"),
        ("unet", {"addition_embed_type": "image"}, "Kandinsky"),
        ("unet", {"in_channels": 9}, "in_channels 9"),
        ("unet", {"_class_name": 5}, "unet/config.json: _class_name is 5, expected text"),
        ("text_encoder", {"architectures": 5}, "config.json: architectures is 5, expected a list"),
        ("text_encoder", {"architectures": "CLIPTextModel"}, "is 'CLIPTextModel', expected a list"),
        ("unet", {"norm_num_groups": 5}, "unet/config.json: norm_num_groups is 5, expected"),
        ("vae", {"block_out_channels": 3}, "vae/config.json: block_out_channels is 3, expected"),
        ("text_encoder", {"hidden_act": "relu"}, "hidden_act"),
        (
            "unet",
            {"cross_attention_dim": 768},
            "unet's cross_attention_dim is 768 but the text_enc",
        ),
        ("vae", {"latent_channels": 16}, "the vae's latent_channels is 16"),
        (
            "text_encoder",
            {"vocab_size": 1000},
            "has 49408 tokens but the text_encoder's vocab_size",
        ),
    ],
)
def test_config_of_something_else(folder, component, change, message):
    file = folder.path / component / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    text = refusal(folder.path)
    assert message in text and str(folder.path) in text


def test_classes_of_flax_are_the_same(folder):
    file = folder.path / "unet" / "config.json"
    config = json.loads(file.read_text()) | {"_class_name": "FlaxUNet2DConditionModel"}
    before = load(folder.path).unet
    file.write_text(json.dumps(config))
    assert load(folder.path).unet == before


def test_schedule_of_an_unknown_kind(folder):
    file = folder.path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "sample"}))
    assert "prediction_type" in refusal(folder.path)
    file.unlink()
    assert "scheduler_config.json is missing" in refusal(folder.path)


@pytest.fixture
def unet(tmp_path):
    """A folder with a config and weights of a UNet that nobody reads further than the header."""
    part = tmp_path / "model" / "unet"
    part.mkdir(parents=True)
    (part / "config.json").write_text("{}")
    save_file({"a": np.zeros(3, np.float32)}, part / "diffusion_pytorch_model.safetensors")
    return part


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "loop"])
@pytest.mark.parametrize("name", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_files_that_are_none(unet, name, kind):
    replace_by(unet / name, kind)
    with pytest.raises(UserError) as error:
        read_headers(unet, UNET)
        read_config(unet.parent, UNET)
    said = {"fifo": "is no regular file", "folder": "is a folder", "link": "is missing, a link to"}
    assert f"{unet / name} {said.get(kind, 'can')}" in str(error.value)


@pytest.mark.parametrize("shard", ["x" * 300, "../../etc/passwd", "/etc/passwd", ""])
def test_an_index_that_names_no_file_beside_it(unet, shard):
    file = unet / "diffusion_pytorch_model.safetensors"
    file.unlink()
    index = file.with_name(f"{file.name}.index.json")
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(UserError, match=r"is missing, though .*index.json names it"):
        read_headers(unet, UNET)
