"""The permitted values of each `config.json`'s fields, and the message for any other value."""

import pytest

from dsd_jax.diffusion.noising import Schedule
from dsd_jax.errors import UserError
from dsd_jax.models.clip import CLIPConfig
from dsd_jax.models.text_encoder import TextConfig
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import VAEConfig
from tests.random_clip import CLIP
from tests.random_model import TEXT, TEXT_2, UNET, UNET_XL, VAE

HUGE = 10**13


def refusal(read, json) -> str:
    with pytest.raises(UserError) as error:
        read(json)
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 400
    return text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_size": None}, "sample_size is None, expected a whole number of 1 or more"),
        ({"sample_size": [8, 4]}, "sample_size is [8, 4], expected a whole number of 1 or more"),
        ({"sample_size": "8"}, "sample_size is '8', expected a whole number"),
        ({"sample_size": 8.0}, "sample_size is 8.0, expected a whole number"),
        ({"sample_size": True}, "sample_size is True, expected a whole number"),
        ({"sample_size": 0}, "sample_size is 0, expected a whole number of 1 or more"),
        ({"sample_size": -8}, "sample_size is -8, expected a whole number of 1 or more"),
        ({"sample_size": 7}, "sample_size is 7, expected a multiple of 2"),
        ({"sample_size": HUGE}, "sample_size is 10000000000000, expected 512 or less"),
        ({"block_out_channels": None}, "block_out_channels is None, expected a list;"),
        ({"block_out_channels": "many"}, "block_out_channels is 'many', expected a list;"),
        ({"block_out_channels": []}, "block_out_channels is [], expected at least 1 entries"),
        ({"block_out_channels": [8] * 9}, "expected at most 8 entries"),
        ({"block_out_channels": [8, HUGE]}, "block_out_channels.1 is 10000000000000, expected"),
        ({"block_out_channels": [8, 2.5]}, "block_out_channels.1 is 2.5, expected a whole number"),
        ({"layers_per_block": HUGE}, "layers_per_block is 10000000000000, expected 16 or less"),
        ({"layers_per_block": [1, 2]}, "layers_per_block is [1, 2], expected a whole number"),
        ({"transformer_layers_per_block": HUGE}, "expected 64 or less"),
        (
            {"transformer_layers_per_block": 64, "layers_per_block": 16},
            "ask for 4224 transformer blocks, expected at most 512",
        ),
        ({"cross_attention_dim": [12, 12]}, "cross_attention_dim is [12, 12], expected a whole"),
        ({"cross_attention_dim": "12"}, "cross_attention_dim is '12', expected a whole number"),
        ({"in_channels": [4]}, "in_channels is [4], expected a whole number"),
        ({"in_channels": [4], "out_channels": 4}, "in_channels [4] differs from out_channels 4"),
        ({"attention_head_dim": "two"}, "attention_head_dim is 'two', expected a list"),
        ({"attention_head_dim": [1, None]}, "attention_head_dim.1 is None, expected a whole"),
        ({"attention_head_dim": 3}, "attention_head_dim is 3, expected a divisor of the width 8"),
        ({"norm_num_groups": 5}, "norm_num_groups is 5, expected a divisor of the width 8"),
        ({"norm_num_groups": 0}, "norm_num_groups is 0, expected 1 or more"),
        ({"norm_eps": "1e-5"}, "norm_eps is '1e-5', expected a number"),
        ({"norm_eps": float("inf")}, "norm_eps is inf, expected"),
        ({"use_linear_projection": "no"}, "use_linear_projection is 'no', expected true or false"),
        ({"upcast_attention": "false"}, "upcast_attention is 'false', expected true or false"),
        ({"upcast_attention": 1}, "upcast_attention is 1, expected true or false"),
        ({"flip_sin_to_cos": "true"}, "flip_sin_to_cos is 'true', but only True is supported"),
        ({"conv_in_kernel": True}, "conv_in_kernel is True, but only 3 is supported"),
        ({"only_cross_attention": [True, False]}, "is [True, False], but only False"),
        ({"down_block_types": "abc"}, "down_block_types is 'abc', expected a list"),
        ({"down_block_types": [5, 5]}, "down_block_types.0 is 5, expected text"),
        ({"addition_embed_type": {}}, "addition_embed_type is {}, as in Kandinsky"),
    ],
)
def test_unet(change, message):
    text = refusal(UNetConfig.from_json, UNET | change)
    assert message in text and text.startswith("unet/config.json: ")


@pytest.mark.parametrize(
    "change",
    [
        {"sample_size": [4, 4]},
        {"layers_per_block": [1, 1]},
        {"only_cross_attention": [False, False]},
        {"num_attention_heads": [2, 2]},
        {"upcast_attention": None},
        {"norm_eps": 1e-5, "dropout": 0},
        {"a_field_of_tomorrow": [{}]},
    ],
)
def test_other_spellings_of_the_same_unet(change):
    assert UNetConfig.from_json(UNET | change) == UNetConfig.from_json(UNET)


def test_unet_of_sdxl():
    text = refusal(UNetConfig.from_json, UNET_XL | {"addition_time_embed_dim": "four"})
    assert "addition_time_embed_dim is 'four', expected a whole number" in text
    text = refusal(UNetConfig.from_json, UNET_XL | {"addition_time_embed_dim": 3})
    assert "addition_time_embed_dim is 3, expected an even number" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": 3}, "block_out_channels is 3, expected a list"),
        ({"block_out_channels": [8, HUGE]}, "block_out_channels.1 is 10000000000000"),
        ({"layers_per_block": HUGE}, "layers_per_block is 10000000000000, expected 16 or less"),
        ({"latent_channels": 0}, "latent_channels is 0, expected 1 or more"),
        ({"norm_num_groups": 3}, "norm_num_groups is 3, expected a divisor of the width 8"),
        ({"scaling_factor": "0.18"}, "scaling_factor is '0.18', expected a number"),
        ({"scaling_factor": None}, "scaling_factor is None, expected a number"),
        ({"scaling_factor": 0.0}, "scaling_factor is 0.0, expected more than 0"),
        ({"force_upcast": "no"}, "force_upcast is 'no', expected true or false"),
        ({"down_block_types": 5}, "down_block_types is 5, but only"),
    ],
)
def test_vae(change, message):
    text = refusal(VAEConfig.from_json, VAE | change)
    assert message in text and text.startswith("vae/config.json: ")


@pytest.mark.parametrize("side", [[8, 8], [8, 4], None])
def test_a_side_of_the_vae_decides_nothing(side):
    json = VAE | {"sample_size": side, "shift_factor": 0.0}
    assert VAEConfig.from_json(json).downscale == VAEConfig.from_json(VAE).downscale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": [908]}, "vocab_size is [908], expected a whole number"),
        ({"vocab_size": HUGE}, "vocab_size is 10000000000000, expected 1048576 or less"),
        ({"max_position_embeddings": None}, "max_position_embeddings is None, expected a whole"),
        ({"hidden_size": "big"}, "hidden_size is 'big', expected a whole number"),
        ({"num_hidden_layers": HUGE}, "num_hidden_layers is 10000000000000, expected 128 or less"),
        ({"num_attention_heads": 5}, "num_attention_heads is 5, expected a divisor of the width"),
        ({"hidden_act": 5}, "hidden_act is 5, expected 'quick_gelu' or 'gelu'"),
        ({"layer_norm_eps": None}, "layer_norm_eps is None, expected a number"),
        ({"text_config": []}, "it is [], expected an object"),
        ({"text_config": None}, "it is None, expected an object"),
        ({"eos_token_id": None}, "eos_token_id is None, expected a whole number"),
        ({"projection_dim": -1}, "projection_dim is -1, expected 1 or more"),
    ],
)
def test_text_encoder(change, message):
    def read(json):
        return TextConfig.from_json(json, "text_encoder_2/config.json", projected=True)

    text = refusal(read, TEXT_2 | change)
    assert message in text and text.startswith("text_encoder_2/config.json: ")


def test_what_a_text_encoder_without_projection_does_not_read():
    plain = TextConfig.from_json(TEXT)
    assert TextConfig.from_json(TEXT | {"projection_dim": None, "eos_token_id": "x"}) == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config": 5}, "config.json: text_config is 5, expected an object"),
        ({"vision_config": []}, "config.json: vision_config is [], expected an object"),
        ({"projection_dim": "wide"}, "config.json: projection_dim is 'wide', expected a whole"),
        ({"vision_config": {"num_hidden_layers": HUGE}}, "vision_config: num_hidden_layers is"),
        ({"vision_config": {"image_size": None}}, "vision_config: image_size is None, expected"),
        ({"vision_config": {"image_size": HUGE}}, "vision_config: image_size is 10000000000000"),
        ({"vision_config": {"num_attention_heads": 5}}, "vision_config: num_attention_heads is 5"),
        ({"text_config": {"num_hidden_layers": "3"}}, "text_config: num_hidden_layers is '3'"),
    ],
)
def test_clip(change, message):
    assert message in refusal(CLIPConfig.from_json, CLIP | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_start": "0.1"}, "beta_start is '0.1', expected a number"),
        ({"beta_start": None}, "beta_start is None, expected a number"),
        ({"beta_end": 1.5}, "beta_end is 1.5, expected less than 1"),
        ({"num_train_timesteps": 0}, "num_train_timesteps is 0, expected 1 or more"),
        ({"num_train_timesteps": {}}, "num_train_timesteps is {}, expected a whole number"),
        ({"num_train_timesteps": HUGE}, "num_train_timesteps is 10000000000000, expected"),
        ({"prediction_type": None}, "prediction_type is None, expected text"),
        ({"rescale_betas_zero_snr": "no"}, "rescale_betas_zero_snr is 'no', expected true or"),
        ({"_class_name": 5}, "_class_name is 5, expected text"),
    ],
)
def test_schedule(change, message):
    text = refusal(Schedule.from_json, Schedule().to_json() | change)
    assert message in text and text.startswith("scheduler/scheduler_config.json: ")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("LCMScheduler", Schedule()),
        ("HeunDiscreteScheduler", Schedule(beta_schedule="linear")),
        ("DDIMScheduler", Schedule(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")),
    ],
)
def test_schedule_of_a_file_that_names_its_class_alone(kind, expected):
    """The defaults of diffusers differ between its classes."""
    assert Schedule.from_json({"_class_name": kind}) == expected
