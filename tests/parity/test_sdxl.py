"""SDXL of small random shapes, with the pipeline of PyTorch diffusers as the judge.

The pipeline writes its folder, `dsd_jax.load` reads it. `base` is as SDXL and SDXL-Turbo are:
three levels, none but text in the first, zeros for an empty caption, a caption's end by the highest
id. `velocity` is a relative: v-prediction, the end by its own id, "" read like any other caption.
"""

from dataclasses import dataclass
from importlib.resources import files
from types import SimpleNamespace

import diffusers
import jax
import numpy as np
import pytest
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

import dsd_jax
from dsd_jax.diffusion.pipeline import EncodedCaptions
from dsd_jax.matching.forward import cross_attention_layers
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.prompts.prompt_params import by_layer, init_lora
from tests.parity.oracle import assert_close, make_sensitive, nchw, nhwc, recorded, spread

CAPTIONS = ["a cat to the left of a red apple", "a dog"]
POOLED, SIZES = 20, 8  # widths of the pooled text and of each number's sinusoids
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Shape:
    """What sets a model apart."""

    channels: tuple[int, ...]
    depths: list[int]
    heads: list[int]
    scheduler: str
    prediction: str
    zeros: bool
    end_token: int | None


pytestmark = [
    pytest.mark.usefixtures("quickly_compiled"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # of diffusers' scheduler
]

SHAPES = {
    "base": Shape(
        channels=(16, 24, 32),
        depths=[1, 1, 2],
        heads=[2, 3, 4],
        scheduler="EulerDiscreteScheduler",
        prediction="epsilon",
        zeros=True,
        end_token=2,
    ),
    "velocity": Shape(
        channels=(16, 32),
        depths=[2, 1],
        heads=[2, 4],
        scheduler="EulerAncestralDiscreteScheduler",
        prediction="v_prediction",
        zeros=False,
        end_token=None,
    ),
}


def make_unet(shape):
    levels = len(shape.channels)
    down = ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * (levels - 1)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=shape.channels,
        down_block_types=down,
        up_block_types=[name.replace("Down", "Up") for name in reversed(down)],
        transformer_layers_per_block=shape.depths,
        attention_head_dim=shape.heads,
        cross_attention_dim=32,
        layers_per_block=1,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=SIZES,
        projection_class_embeddings_input_dim=POOLED + 6 * SIZES,
    ).eval()
    make_sensitive(unet)
    return unet


def make_vae():
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.13025,
        force_upcast=True,
    ).eval()


def make_text(network, tokens, width, layers, **options):
    text = network(
        CLIPTextConfig(
            vocab_size=tokens,
            hidden_size=width,
            intermediate_size=40,
            num_attention_heads=2,
            num_hidden_layers=layers,
            projection_dim=POOLED,
            **options,
        )
    ).eval()
    spread(text)
    return text


def make_pipeline(shape):
    source = str(files("dsd_jax") / "assets" / "tiny" / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(source)
    tokens, end = len(tokenizer), shape.end_token or tokenizer.eos_token_id
    second = {"hidden_act": "gelu", "eos_token_id": end}
    return diffusers.StableDiffusionXLPipeline(
        unet=make_unet(shape),
        vae=make_vae(),
        text_encoder=make_text(CLIPTextModel, tokens, 12, 2, eos_token_id=end),
        text_encoder_2=make_text(CLIPTextModelWithProjection, tokens, 20, 3, **second),
        tokenizer=tokenizer,
        tokenizer_2=CLIPTokenizer.from_pretrained(source, pad_token="!"),
        scheduler=getattr(diffusers, shape.scheduler)(prediction_type=shape.prediction, **BETAS),
        force_zeros_for_empty_prompt=shape.zeros,
        add_watermarker=False,
    )


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """Their pipeline and our model, and inputs for both: two latents, two captions each."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    theirs = make_pipeline(SHAPES[request.param])
    theirs.save_pretrained(folder)
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        shape=SHAPES[request.param],
        folder=folder,
        theirs=theirs,
        ours=dsd_jax.load(folder),
        latents=rng.normal(size=(2, 8, 8, 4)).astype(np.float32),
        timesteps=np.array([14, 801]),
        texts=EncodedCaptions(
            rng.normal(size=(2, 77, 32)).astype(np.float32),
            rng.normal(size=(2, POOLED)).astype(np.float32),
        ),
    )


def their_texts(pair, captions):
    """(states, pooled) of captions, then of what a negative prompt is where none is given."""
    with torch.no_grad():
        states, empty, pooled, pooled_empty = pair.theirs.encode_prompt(captions, device="cpu")
    return EncodedCaptions(states, pooled), EncodedCaptions(empty, pooled_empty)


def their_unet(pair, latents, timesteps, texts):
    """(prediction NHWC, {path: (B, N)}) by PyTorch, told of the picture's size as pipelines do."""
    size = (pair.ours.image_size,) * 2
    ids = pair.theirs._get_add_time_ids(size, (0, 0), size, torch.float32, POOLED)
    added = {"text_embeds": torch.as_tensor(texts.pooled), "time_ids": ids.repeat(len(latents), 1)}
    inputs = nchw(latents), torch.from_numpy(timesteps), torch.as_tensor(texts.states)
    with torch.no_grad(), recorded(pair.theirs.unet) as store:
        out = pair.theirs.unet(*inputs, added_cond_kwargs=added).sample
    return nhwc(out), store


def their_rows(pair):
    """Every latent with both captions, as rows."""
    texts = pair.texts.map(lambda x: np.tile(x, (2,) + (1,) * (x.ndim - 1)))
    latents, steps = (np.repeat(x, 2, axis=0) for x in (pair.latents, pair.timesteps))
    return their_unet(pair, latents, steps, texts)


def our_unet(pair, texts, prompts=None):
    """The same by ours; jitted once per model and kind of prompts."""
    if not hasattr(pair, "apply"):
        network = UNet2DCondition(pair.ours.unet)
        pair.apply = jax.jit(
            lambda params, *rest: network.apply(
                {"params": params}, *rest, image_size=pair.ours.image_size
            )
        )
    states, pooled = texts.map(lambda x: x[None])
    inputs = pair.latents, pair.timesteps, states, by_layer(prompts or {}), pooled
    return pair.apply(pair.ours.params["unet"], *inputs)


def test_texts(pair):
    """Both encoders' states side by side, the pooled text, and what stands for no caption."""
    captions, empty = their_texts(pair, CAPTIONS)
    ours = pair.ours.encode_captions([*CAPTIONS, ""])
    for mine, said, nothing in zip(ours, captions, empty, strict=True):
        assert_close(mine[:2], said)
        assert_close(mine[2], nothing[0])
    assert ours.states.shape == (3, 77, 32) and ours.pooled.shape == (3, POOLED)
    assert np.any(np.asarray(ours.states[2])) != pair.shape.zeros
    assert_close(pair.ours.encode_texts(CAPTIONS), ours.states[:2])


@pytest.mark.parametrize("pair", ["velocity"], indirect=True)
def test_long_captions_are_cut_as_diffusers_cuts_them(pair):
    caption = "a red apple " * 40
    with pytest.warns(UserWarning, match="of which the model reads 77; cut off: 'a red"):
        ours = pair.ours.encode_captions([caption])
    for mine, theirs in zip(ours, their_texts(pair, [caption])[0], strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("pair", ["base"], indirect=True)
def test_vae(pair):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    with torch.no_grad():
        posterior = pair.theirs.vae.encode(nchw(pixels) / 127.5 - 1).latent_dist
    assert_close(pair.ours.latents(list(pixels)), 0.13025 * nhwc(posterior.mean))


def test_unet(pair):
    prediction, scores = our_unet(pair, pair.texts)
    expected, store = their_rows(pair)
    assert_close(prediction, expected)
    assert set(scores) == set(store) == set(cross_attention_layers(pair.ours.unet))
    for path, score in scores.items():
        assert_close(score, store[path])
    # What precedes the first attention depends on the caption by its pooled part alone.
    others = pair.texts._replace(pooled=pair.texts.pooled[::-1])
    assert np.abs(our_unet(pair, others)[0] - prediction).max() > 0.01


def test_lora(pair):
    """Updates beside our projections, merged into PyTorch's."""
    lora = init_lora(pair.ours.unet, jax.random.key(0), rank=2)
    rng = np.random.default_rng(2)
    lora = jax.tree.map(lambda x: (0.3 * rng.normal(size=x.shape)).astype(np.float32), lora)
    kept = {name: x.clone() for name, x in pair.theirs.unet.state_dict().items()}
    for path, projections in lora.items():
        for name, update in projections.items():
            layer = f"{path}.to_out.0" if name == "to_out" else f"{path}.{name}"
            weight = pair.theirs.unet.get_submodule(layer).weight
            weight.data += torch.from_numpy((update["down"] @ update["up"]).T)
    expected, store = their_rows(pair)
    pair.theirs.unet.load_state_dict(kept)
    prediction, scores = our_unet(pair, pair.texts, {"lora": lora})
    assert np.abs(prediction - our_unet(pair, pair.texts)[0]).max() > 0.01
    assert_close(prediction, expected)
    for path, score in scores.items():
        assert_close(score, store[path])


@pytest.mark.parametrize("pair", ["velocity"], indirect=True)
def test_terms(pair):
    """From captions to scores and errors, the empty caption's too; velocities become noise."""
    noise = np.random.default_rng(3).normal(size=pair.latents.shape).astype(np.float32)
    terms = dsd_jax.match_terms(pair.ours, pair.latents, CAPTIONS, noise, pair.timesteps)
    scheduler = diffusers.DDIMScheduler.from_config(
        pair.theirs.scheduler.config, clip_sample=False, timestep_spacing="leading"
    )
    scheduler.set_timesteps(1000)
    assert_close(pair.ours.schedule.alphas_cumprod(), pair.theirs.scheduler.alphas_cumprod)
    said, empty = their_texts(pair, CAPTIONS)
    texts = EncodedCaptions(*(torch.cat([b[:1], a]) for a, b in zip(said, empty, strict=True)))
    for i in range(2):
        for t, timestep in enumerate(pair.timesteps):
            step = torch.tensor([timestep])
            noisy = scheduler.add_noise(nchw(pair.latents[i : i + 1]), nchw(noise[t : t + 1]), step)
            inputs = np.repeat(nhwc(noisy), 3, axis=0)
            out, store = their_unet(pair, inputs, np.full(3, timestep), texts)
            # diffusers' own way from a prediction to the noise in x_t
            clean = scheduler.step(nchw(out), timestep, nchw(inputs)).pred_original_sample
            alpha = scheduler.alphas_cumprod[timestep]
            epsilon = (nchw(inputs) - alpha.sqrt() * clean) / (1 - alpha).sqrt()
            error = np.linalg.norm((noise[t] - nhwc(epsilon)).reshape(3, -1), axis=1)
            assert_close(terms.error_uncond[i, t], error[0])
            assert_close(terms.error[i, :, t], error[1:])
            for path, score in store.items():
                assert_close(terms.lse_uncond[path][i, t], score[0])
                assert_close(terms.lse[path][i, :, t], score[1:])
