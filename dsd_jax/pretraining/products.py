"""What pre-training starts from and what it leaves: models in the Hugging Face layout, samples."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from dsd_jax.clip.clip_files import save_clip
from dsd_jax.clip.clip_model import Clip, Normalizer
from dsd_jax.config.pretrain_config import ClipPretrainConfig, PretrainConfig
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.errors import UserError
from dsd_jax.pretraining.network_shapes import (
    clip_config,
    schedule,
    text_config,
    unet_config,
    vae_config,
)
from dsd_jax.pretraining.samples import CAPTIONS, contact_sheet, sample
from dsd_jax.weights.model_loading import load
from dsd_jax.weights.model_saving import save
from dsd_jax.weights.tokenizer_files import read_tokenizer

_TOKENIZER = Path(__file__).parents[1] / "assets" / "tiny" / "tokenizer"


def bundled_tokenizer() -> Any:
    """The tokenizer that `dsd_jax.assets.build_tokenizer` made for the scenes' captions."""
    return read_tokenizer(_TOKENIZER)


def starting_weights(config: PretrainConfig) -> dict[str, Any] | None:
    """The weights of the model that `config.start` names, whose VAE stays as it is; or None.

    If that model predicts something else (noise or v), the UNet's last layer starts anew.

    Raises:
        UserError: that model has another shape than this config's.
    """
    if not config.start:
        return None
    model = load(config.start)
    expected = {
        "unet": unet_config(config),
        "vae": vae_config(config),
        "text": text_config(config, len(bundled_tokenizer())),
    }
    for part, shape in expected.items():
        if getattr(model, part) != shape:
            raise UserError(
                f"--config.start={config.start}: its {part} is {getattr(model, part)}, but this "
                f"config makes {shape}; start from a model of the same shape, or from none."
            )
    if model.schedule == schedule(config):
        return model.params
    unet = model.params["unet"]
    anew = {"conv_out": jax.tree.map(jnp.zeros_like, unet["conv_out"])}
    return {**model.params, "unet": {**unet, **anew}}


def write_model(config: PretrainConfig, workdir: Path, params: Any) -> Model:
    """Write the model as a folder that `dsd_jax.load` and PyTorch diffusers read, in float16."""
    tokenizer, vae = bundled_tokenizer(), vae_config(config)
    model = Model(
        name=str(workdir / "model"),
        unet=unet_config(config),
        vae=vae,
        text=text_config(config, len(tokenizer)),
        schedule=schedule(config),
        params=params,
        tokenizer=tokenizer,
        image_size=vae.sample_size,
    )
    save(model, workdir / "model")
    print(f"the model is in {workdir / 'model'}")
    return model


def write_samples(model: Model, workdir: Path) -> None:
    """Draw some captions of scenes, as a first look at what was learned."""
    contact_sheet(sample(model, CAPTIONS, seed=0), CAPTIONS).save(workdir / "samples.png")
    print(f"samples are in {workdir / 'samples.png'}")


def write_clip(config: ClipPretrainConfig, workdir: Path, params: Any) -> Clip:
    """Write the CLIP as a folder that `load_clip` and PyTorch transformers read, in float16."""
    tokenizer = bundled_tokenizer()
    shape = clip_config(config, tokenizer)
    clip = Clip(str(workdir / "model"), shape, params, tokenizer, Normalizer())
    save_clip(clip, workdir / "model")
    print(f"the model is in {workdir / 'model'}")
    return clip
