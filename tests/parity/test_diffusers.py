"""Models of other shapes than the goldens', with PyTorch diffusers and transformers as the judge.

Each is random, written by `save_pretrained` and read by `dsd_jax.load`. Attention logits are made
large enough that a wrong scale or a wrong head would show.
"""

from dataclasses import dataclass, field
from importlib.resources import files
from types import SimpleNamespace

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import dsd_jax
from dsd_jax.matching.forward import cross_attention_layers
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.vae import AutoencoderKL as OurAutoencoderKL
from dsd_jax.prompts.prompt_params import by_layer, init_lora
from tests.parity.oracle import assert_close, make_sensitive, nchw, nhwc, recorded, spread

pytestmark = pytest.mark.usefixtures("quickly_compiled")
CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
CAPTIONS = ["a cat to the left of a red apple", "a dog", ""]


@dataclass(frozen=True)
class Shape:
    """What sets a model apart; widths are given per level."""

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    text: dict
    unet: dict
    vae_channels: tuple[int, ...] = (8, 16)
    prediction: str = "epsilon"
    grid: tuple[int, int] = (8, 8)
    prefix: str = "text_model."
    pad_token: str | None = None
    sampler: str = "DDIMScheduler"  # that of its folder
    vae: dict = field(default_factory=dict)


SHAPES = {
    # As SD 1.x: heads as one number, convolutions as projections; attention at other levels.
    "three-levels": Shape(
        channels=(16, 24, 32),
        attention=(False, True, True),
        text={"hidden_size": 24, "num_attention_heads": 3, "hidden_act": "quick_gelu"},
        unet={"attention_head_dim": 4, "layers_per_block": 1},
        vae_channels=(8, 16, 16),
        vae={"layers_per_block": 2, "scaling_factor": 0.5},
    ),
    # As SD 2.x: heads per level, matrices as projections, v-prediction, queries upcast.
    "velocity": Shape(
        channels=(16, 32),
        attention=(True, True),
        text={"hidden_size": 40, "num_attention_heads": 4, "hidden_act": "gelu"},
        unet={
            "attention_head_dim": [2, 4],
            "layers_per_block": 1,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        prediction="v_prediction",
        grid=(8, 4),
        prefix="",
        pad_token="!",
    ),
    # As SD-Turbo: SD 2.1's network that predicts noise, and a sampler that strides from the end.
    "turbo": Shape(
        channels=(16, 24),
        attention=(True, False),
        text={"hidden_size": 24, "num_attention_heads": 2, "hidden_act": "gelu"},
        unet={
            "attention_head_dim": [2, 4],
            "layers_per_block": 1,
            "use_linear_projection": True,
        },
        pad_token="!",
        sampler="EulerDiscreteScheduler",
    ),
    # Several blocks per transformer, other norms, more latent channels.
    "deep": Shape(
        channels=(12, 24),
        attention=(True, True),
        text={"hidden_size": 16, "num_attention_heads": 2, "hidden_act": "gelu"},
        unet={
            "attention_head_dim": [3, 6],
            "layers_per_block": 1,
            "transformer_layers_per_block": [2, 1],
            "norm_num_groups": 3,
            "norm_eps": 1e-6,
            "in_channels": 6,
            "out_channels": 6,
        },
        vae={"latent_channels": 6},
    ),
}


def make_unet(shape):
    down, up = ([CROSS[side] if a else PLAIN[side] for a in shape.attention] for side in (0, 1))
    options = {
        "norm_num_groups": 4,
        "cross_attention_dim": shape.text["hidden_size"],
        "block_out_channels": shape.channels,
        "down_block_types": down,
        "up_block_types": up[::-1],
        "sample_size": shape.grid[0],
    }
    unet = UNet2DConditionModel(**options | shape.unet).eval()
    make_sensitive(unet)
    return unet


def make_vae(shape):
    blocks = len(shape.vae_channels)
    options = {
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "block_out_channels": shape.vae_channels,
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "sample_size": shape.grid[0] * 2 ** (blocks - 1),
    }
    return AutoencoderKL(**options | shape.vae).eval()


def make_tokenizer(shape, folder):
    source = files("dsd_jax") / "assets" / "tiny" / "tokenizer"
    options = {"pad_token": shape.pad_token} if shape.pad_token else {}
    tokenizer = CLIPTokenizer.from_pretrained(str(source), **options)
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_text(shape, tokens):
    config = CLIPTextConfig(
        vocab_size=tokens,
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        num_hidden_layers=2,
        intermediate_size=56,
        **shape.text,
    )
    text = CLIPTextModel(config).eval()
    spread(text)
    return text


def set_prefix(folder, prefix):
    """Files on the Hub have both kinds of names."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    save_file({prefix + name: x for name, x in plain.items()}, file, {"format": "pt"})


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """Their model and ours, and inputs for both."""
    torch.manual_seed(0)
    shape, folder = SHAPES[request.param], tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer(shape, folder / "tokenizer")
    theirs = SimpleNamespace(
        unet=make_unet(shape),
        vae=make_vae(shape),
        text=make_text(shape, len(tokenizer)),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=shape.prediction,
            clip_sample=False,
        ),
        tokenizer=tokenizer,
    )
    theirs.unet.save_pretrained(folder / "unet")
    theirs.vae.save_pretrained(folder / "vae")
    theirs.text.save_pretrained(folder / "text_encoder")
    sampler = getattr(diffusers, shape.sampler)
    sampler.from_config(theirs.scheduler.config, timestep_spacing="trailing").save_pretrained(
        folder / "scheduler"
    )
    set_prefix(folder / "text_encoder", shape.prefix)
    rng = np.random.default_rng(0)
    channels, width = theirs.unet.config.in_channels, shape.text["hidden_size"]
    return SimpleNamespace(
        shape=shape,
        theirs=theirs,
        ours=dsd_jax.load(folder),
        latents=rng.normal(size=(2, *shape.grid, channels)).astype(np.float32),
        states=rng.normal(size=(2, 77, width)).astype(np.float32),
        timesteps=np.array([14, 801]),
    )


def their_unet(pair, latents, timesteps, states, tokens=None):
    """(prediction NHWC, {path: (B, N)}) by PyTorch."""
    inputs = nchw(latents), torch.from_numpy(timesteps), torch.from_numpy(states)
    with torch.no_grad(), recorded(pair.theirs.unet, tokens) as store:
        out = pair.theirs.unet(*inputs).sample
    return nhwc(out), store


def our_unet(pair, prompts=None):
    """The same by ours; jitted once per model and kind of prompts."""
    if not hasattr(pair, "apply"):
        network = UNet2DCondition(pair.ours.unet)
        pair.apply = jax.jit(lambda params, *rest: network.apply({"params": params}, *rest))
    inputs = pair.latents, pair.timesteps, pair.states[:, None]
    return pair.apply(pair.ours.params["unet"], *inputs, by_layer(prompts or {}))


def test_text(pair):
    tokenizer = pair.theirs.tokenizer
    options = {"padding": "max_length", "max_length": 77, "return_tensors": "pt"}
    with torch.no_grad():
        states = pair.theirs.text(tokenizer(CAPTIONS, **options)["input_ids"]).last_hidden_state
    assert_close(pair.ours.encode_texts(CAPTIONS), states)


def test_vae(pair):
    size = pair.ours.image_size
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8)
    latents = pair.latents
    with torch.no_grad():
        posterior = pair.theirs.vae.encode(nchw(pixels) / 127.5 - 1).latent_dist
        decoded = nhwc(pair.theirs.vae.decode(nchw(latents)).sample)
    mean, logvar = pair.ours.encode_images(list(pixels))
    assert_close(mean, nhwc(posterior.mean))
    assert_close(logvar, nhwc(posterior.logvar))
    ours = jax.jit(
        lambda params, x: OurAutoencoderKL(pair.ours.vae).apply(
            {"params": params}, x, method="decode"
        )
    )(pair.ours.params["vae"], latents)
    assert_close(ours, decoded)
    assert_close(
        pair.ours.latents(list(pixels)), pair.theirs.vae.config.scaling_factor * np.asarray(mean)
    )


def test_unet(pair):
    prediction, scores = our_unet(pair)
    expected, store = their_unet(pair, pair.latents, pair.timesteps, pair.states)
    assert_close(prediction, expected)
    assert set(scores) == set(store) == set(cross_attention_layers(pair.ours.unet))
    for path, score in scores.items():
        assert_close(score, store[path])
    # The recording processors are as good a judge as diffusers' own.
    inputs = nchw(pair.latents), torch.from_numpy(pair.timesteps), torch.from_numpy(pair.states)
    with torch.no_grad():
        plain = pair.theirs.unet(*inputs).sample
    assert_close(expected, nhwc(plain))


def test_lora(pair):
    """A branch beside each projection, ours and in PyTorch."""
    lora = init_lora(pair.ours.unet, jax.random.key(0), rank=2)
    rng = np.random.default_rng(2)
    lora = jax.tree.map(lambda x: (0.3 * rng.normal(size=x.shape)).astype(np.float32), lora)
    handles = []
    for path, projections in lora.items():
        module = pair.theirs.unet.get_submodule(path)
        for name, update in projections.items():
            projection = module.to_out[0] if name == "to_out" else getattr(module, name)
            down, up = torch.from_numpy(update["down"]), torch.from_numpy(update["up"])
            handles.append(
                projection.register_forward_hook(
                    lambda _, inputs, out, down=down, up=up: out + inputs[0] @ down @ up
                )
            )
    assert len(handles) == 4 * len(lora) == 8 * len(cross_attention_layers(pair.ours.unet))
    expected, store = their_unet(pair, pair.latents, pair.timesteps, pair.states)
    for handle in handles:
        handle.remove()
    untrained, _ = our_unet(pair)
    prediction, scores = our_unet(pair, {"lora": lora})
    assert np.abs(prediction - untrained).max() > 0.01
    assert_close(prediction, expected)
    for path, score in scores.items():
        assert_close(score, store[path])


@pytest.mark.parametrize("pair", ["velocity"], indirect=True)
def test_terms(pair):
    """Velocities become noise, on a grid of pictures and captions; latents need not be square."""
    noise = np.random.default_rng(3).normal(size=pair.latents.shape).astype(np.float32)
    terms = dsd_jax.match_terms(pair.ours, pair.latents, pair.states, noise, pair.timesteps)
    scheduler = pair.theirs.scheduler
    scheduler.set_timesteps(1000)
    empty = np.asarray(pair.ours.encode_texts([""]))
    for i in range(2):
        for t, timestep in enumerate(pair.timesteps):
            step = torch.tensor([timestep])
            noisy = scheduler.add_noise(nchw(pair.latents[i : i + 1]), nchw(noise[t : t + 1]), step)
            rows = np.concatenate([empty, pair.states])
            inputs = np.repeat(nhwc(noisy), 3, axis=0)
            velocity, store = their_unet(pair, inputs, np.full(3, timestep), rows)
            # diffusers' own way from a velocity to the noise in x_t
            clean = scheduler.step(nchw(velocity), timestep, nchw(inputs)).pred_original_sample
            alpha = scheduler.alphas_cumprod[timestep]
            epsilon = (nchw(inputs) - alpha.sqrt() * clean) / (1 - alpha).sqrt()
            error = np.linalg.norm((noise[t] - nhwc(epsilon)).reshape(3, -1), axis=1)
            assert_close(terms.error_uncond[i, t], error[0])
            assert_close(terms.error[i, :, t], error[1:])
            for path, score in store.items():
                assert_close(terms.lse_uncond[path][i, t], score[0])
                assert_close(terms.lse[path][i, :, t], score[1:])


@pytest.mark.parametrize("pair", ["deep"], indirect=True)
def test_tokens(pair):
    """Learned tokens are further keys and values of every caption."""
    rng = np.random.default_rng(4)
    tokens = {
        path: {name: rng.normal(size=(3, features)).astype(np.float32) for name in ("key", "value")}
        for path, features in features_of_layers(pair).items()
    }
    expected, store = their_unet(pair, pair.latents, pair.timesteps, pair.states, tokens)
    prediction, scores = our_unet(pair, {"tokens": jax.tree.map(jnp.asarray, tokens)})
    assert_close(prediction, expected)
    for path, score in scores.items():
        assert_close(score, store[path])


def features_of_layers(pair):
    modules = dict(pair.theirs.unet.named_modules())
    return {
        path: modules[path].to_k.out_features for path in cross_attention_layers(pair.ours.unet)
    }
