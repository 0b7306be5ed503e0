"""What an adapter becomes as prompts: its scale folded in, and nothing left out in silence."""

import ml_dtypes
import numpy as np
import pytest

from dsd_jax.conversion import peft_config
from dsd_jax.conversion.adapter import check_adapter, make_adapter, to_prompts
from dsd_jax.conversion.peft_config import parse_peft_config
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
    parsed = None if config is None else parse_peft_config(config, "file")
    prompts = to_prompts(make_adapter("file", named, parsed))
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
        ({"lora_alpha": 3, "alpha_pattern": {r".*attn[12]\.to_(q|k|v)": 7}}, 3.5),
        ({"lora_alpha": 3, "alpha_pattern": {r"down_blocks\.\d+\..*to_q": 7}}, 3.5),
        ({"lora_alpha": 3, "peft_type": "LORA", "use_dora": False, "rank_pattern": {"(": 1}}, 1.5),
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
    ("shape", "dtype"), [((), np.int64), ((1,), np.float16), ((1, 1), np.float32), ((1,), np.int8)]
)
def test_alpha_of_any_kind(shape, dtype):
    named = dict(
        zip(
            [f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight"],
            tensors().values(),
            strict=True,
        )
    )
    expected = 0.5 * product(named)
    named[f"{KOHYA}.alpha"] = np.full(shape, 1, dtype)
    check_adapter(make_adapter("file", named), None)
    np.testing.assert_allclose(update(named), expected, rtol=1e-6)
    named[f"{KOHYA}.alpha"] = np.ones(2, np.float32)
    with pytest.raises(UserError, match=r"alpha is \(2,\), expected one number"):
        check_adapter(make_adapter("file", named), None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lora_alpha": "many"}, "lora_alpha is 'many', expected a number"),
        ({"lora_alpha": None}, "lora_alpha is None, expected a number"),
        ({"lora_alpha": 1e300}, "lora_alpha is 1e[+]300, expected 1000000000"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"alpha_pattern": [1]}, "alpha_pattern is .1., expected an object"),
        ({"alpha_pattern": {"to_q": "x"}}, "alpha_pattern.to_q is 'x', expected a number"),
        ({"alpha_pattern": {"(": 1}}, "has '[(]', no regular expression"),
        ({"alpha_pattern": {"(a+)+b": 1}}, "may take for ever"),
        ({"alpha_pattern": {"(.|.)" * 40: 1}}, "may take for ever"),
        ({"alpha_pattern": {".*" * 20 + "x": 1}}, "may take for ever"),
        ({"alpha_pattern": {"(?=(a+))\\1": 1}}, "may take for ever"),
        ({"alpha_pattern": {"((.*){9}){9}": 1}}, "may take for ever"),
        ({"alpha_pattern": {"a?" * 30 + "a" * 30: 1}}, "may take for ever"),
        ({"alpha_pattern": {"x" * 1000: 1}}, "a pattern of 1000 letters, expected fewer"),
        ({"use_dora": True}, "use_dora is true, but an update of DoRA"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes', expected true or false"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', expected 'LORA'"),
    ],
)
def test_configs_that_make_no_sense(config, message):
    with pytest.raises(UserError, match=f"file: .*{message}.*; save the adapter again"):
        update(tensors(), config)


def test_patterns_that_are_slow_together(monkeypatch):
    """Each of them is allowed, all of them for all modules would take hours."""
    monkeypatch.setattr(peft_config, "_MAX_SECONDS", 0.2)
    slow = "(.|.|.|.|.|.|.|.)" + ".*" * 2
    config = parse_peft_config({"alpha_pattern": {f"{slow}{n:05}": 1 for n in range(9000)}}, "file")
    modules = {f"{PATH}{'.' * 200}.{n}": 4 for n in range(1000)}
    with pytest.raises(UserError, match="takes more than .* seconds to match"):
        config.scales(modules, "file")


def test_an_alpha_beyond_floats():
    named = dict(
        zip(
            [f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight"],
            tensors().values(),
            strict=True,
        )
    )
    for alpha in (1e300, np.inf, np.nan):
        named[f"{KOHYA}.alpha"] = np.float64(alpha)
        with pytest.raises(UserError, match="not finite, or its alpha is too large"):
            update(named)


def test_other_layers_are_named():
    others = [f"unet.{PATH}.ff.{number}.lora_A.weight" for number in range(6)]
    named = tensors() | {name: np.zeros((2, 2), np.float32) for name in others}
    shown = f"{', '.join(others[:4])} and 2 more"
    message = f"file has 6 of 8 tensors that prompts have no place for: {shown}"
    with pytest.raises(UserError, match=message):
        make_adapter("file", named)
    with pytest.raises(UserError, match="file is empty: it is no LoRA"):
        make_adapter("file", {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "is a whole Stable Diffusion in one fi"),
        ("first_stage_model.encoder.conv_in.weight", "from_single_file(file).save_pretrained("),
        ("conv_in.weight", "has whole weights of a UNet; give the model's folder"),
        ("down_blocks.0.resnets.0.conv1.weight", "has whole weights of a UNet; give the model's"),
        ("control_model.input_blocks.0.0.weight", "is a ControlNet"),
        ("controlnet_down_blocks.0.weight", "is a ControlNet"),
        ("emb_params", "is a textual inversion"),
        ("<my-cat>", "is a textual inversion"),
        ("clip_g", "is a textual inversion"),
        (f"{KOHYA}.hada_w1_a", "is an adapter of LyCORIS other than LoRA"),
        (f"{KOHYA}.lokr_w1", "is an adapter of LyCORIS other than LoRA"),
        (f"unet.{PATH}.to_q.lora_magnitude_vector", "is a DoRA"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "is for a transformer"),
        ("transformer.single_blocks.0.attn.to_q.lora_A.weight", "is for a transformer"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "has updates of a text"),
        ("image_proj.latents", "is an IP-Adapter"),
        ("something.else", "is no LoRA that we know"),
    ],
)
def test_what_else_a_file_may_be(name, message):
    with pytest.raises(UserError) as error:
        make_adapter("file", {name: np.zeros((2, 2), np.float32)})
    text = str(error.value)
    assert message in text and name in text and text.startswith("file ") and "\n" not in text


def test_twice():
    named = tensors()
    named[f"{PATH}.processor.to_q_lora.down.weight"] = np.zeros((2, 3), np.float32)
    with pytest.raises(UserError, match="processor.to_q_lora.down.weight twice, once as unet"):
        make_adapter("file", named)


def test_numbers_that_are_no_weights():
    with pytest.raises(UserError, match="lora_A.weight is of int32, expected one of float16"):
        make_adapter("file", tensors(dtype=np.int32))
    named = tensors()
    named[f"unet.{PATH}.to_q.lora_B.weight"][1, 1] = np.nan
    with pytest.raises(UserError, match="lora_B.weight holds numbers that are not finite"):
        update(named)
