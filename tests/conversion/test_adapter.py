"""What an adapter becomes as prompts: its scale folded in, and nothing left out in silence."""

import ml_dtypes
import numpy as np
import pytest

from dsd_jax.conversion.adapter import make_adapter, to_prompts
from dsd_jax.errors import UserError

PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
KOHYA = f"lora_unet_{PATH.replace('.', '_')}_to_q"


def tensors(rank=2, dtype=np.float32):
    """One projection from 3 features to 5."""
    rng = np.random.default_rng(0)
    return {
        f"unet.{PATH}.to_q.lora_A.weight": rng.normal(size=(rank, 3)).astype(dtype),
        f"unet.{PATH}.to_q.lora_B.weight": rng.normal(size=(5, rank)).astype(dtype),
    }


def update(named, config=None):
    """down @ up of the one projection: (3, 5)."""
    prompts = to_prompts(make_adapter("file", named, config or {}))
    ((projection, found),) = prompts["lora"][PATH].items()
    assert projection == "to_q" and found["down"].dtype == found["up"].dtype == np.float32
    return np.asarray(found["down"] @ found["up"])


def product(named):
    down, up = (x.astype(np.float32) for x in named.values())
    return (up @ down).T


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_no_config_is_scale_1(dtype):
    named = tensors(dtype=dtype)
    np.testing.assert_allclose(update(named), product(named), rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"r": 2, "lora_alpha": 2}, 1),
        ({"r": 2, "lora_alpha": 3}, 1.5),
        ({"lora_alpha": 3, "use_rslora": True}, 3 / 2**0.5),
        ({"lora_alpha": 3, "r": 99}, 1.5),  # the tensors' own rank counts
        ({"lora_alpha": 3, "alpha_pattern": {"to_q": 7, "attn2.to_q": 9}}, 3.5),  # the first
        ({"lora_alpha": 3, "alpha_pattern": {f"^{PATH}.to_q": 7}}, 3.5),
        ({"lora_alpha": 3, "alpha_pattern": {"attn1.to_q": 7, "q": 7}}, 1.5),
        ({"lora_alpha": 3, "alpha_pattern": None}, 1.5),
        ({"r": 2}, 4),  # PEFT's own default of alpha is 8
    ],
)
def test_scales_of_peft(config, scale):
    named = tensors()
    np.testing.assert_allclose(update(named, config), scale * product(named), rtol=1e-5)


def test_alpha_of_kohya():
    named = dict(
        zip(
            [f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight"],
            tensors().values(),
            strict=True,
        )
    )
    expected = product(named)
    np.testing.assert_allclose(update(named), expected, rtol=1e-6)
    named[f"{KOHYA}.alpha"] = np.array(1, np.float16)
    np.testing.assert_allclose(update(named), 0.5 * expected, rtol=1e-6)


@pytest.mark.parametrize(
    "config", [{"lora_alpha": "many"}, {"alpha_pattern": {"(": 1}}, {"alpha_pattern": [1]}]
)
def test_configs_that_make_no_sense(config):
    with pytest.raises(UserError, match="file: its LoRA config has no usable lora_alpha"):
        update(tensors(), config)


def test_other_layers_are_named():
    others = [f"unet.{PATH}.ff.{number}.lora_A.weight" for number in range(6)]
    named = tensors() | {name: np.zeros((2, 2), np.float32) for name in others}
    shown = f"{', '.join(others[:4])} and 2 more"
    message = f"file has 6 of 8 tensors that prompts have no place for: {shown}"
    with pytest.raises(UserError, match=message):
        make_adapter("file", named, {})
    with pytest.raises(UserError, match="file is no LoRA for the attention of .*: conv_in.weight;"):
        make_adapter("file", {"conv_in.weight": np.zeros(2, np.float32)}, {})
    with pytest.raises(UserError, match="file is no LoRA .*: it is empty;"):
        make_adapter("file", {}, {})


def test_twice():
    named = tensors()
    named[f"{PATH}.processor.to_q_lora.down.weight"] = np.zeros((2, 3), np.float32)
    with pytest.raises(UserError, match="processor.to_q_lora.down.weight twice, once as unet"):
        make_adapter("file", named, {})


def test_numbers_that_are_no_weights():
    with pytest.raises(UserError, match="lora_A.weight is of int32, expected one of float16"):
        make_adapter("file", tensors(dtype=np.int32), {})
    named = tensors()
    named[f"unet.{PATH}.to_q.lora_B.weight"][1, 1] = np.nan
    with pytest.raises(UserError, match="lora_B.weight holds numbers that are not finite"):
        update(named)
