"""From a CLIP's folder to a `Clip`: every tensor accounted for, then converted one by one."""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from dsd_jax.clip.caption_ids import LEGACY_END
from dsd_jax.clip.clip_component import COMPONENT, PREPROCESSOR
from dsd_jax.clip.clip_folder import find
from dsd_jax.clip.matcher import Clip
from dsd_jax.clip.preprocessor_file import read_normaliser
from dsd_jax.distributed.devices import check_devices
from dsd_jax.distributed.sharding import host_mesh
from dsd_jax.errors import UserError
from dsd_jax.models.clip import CLIPConfig
from dsd_jax.weights.component_files import read_config
from dsd_jax.weights.model_loading import fitting, float_type, read_weights
from dsd_jax.weights.tokenizer_files import read_tokenizer


def load_clip(where: str | os.PathLike, dtype: Any = jnp.float32, mesh: Mesh | None = None) -> Clip:
    """Loads a CLIP as OpenAI and LAION published them.

    Args:
        where: "tiny-clip", the bundled one; a folder in the layout of transformers' `CLIPModel`
            (`config.json`, `model.safetensors` or `flax_model.msgpack`, a tokenizer's files and,
            if pixels are not normalised as OpenAI's are, `preprocessor_config.json`); or a model
            on the Hub, as "org/name" or "org/name@revision", of which only these are fetched.
        dtype: float type of all parameters but the logit scale, in which matrix products run.
        mesh: of this host's devices, from `sharding.host_mesh`; by default every device has a whole
            copy.

    Raises:
        UserError: no such model, or a file of it is missing, damaged or of an unsupported kind; or
            parameters are missing, extra, of another shape or not finite.
    """
    check_devices()
    dtype = float_type(dtype)
    folder = find(where)
    config = read_config(folder, COMPONENT)
    tokenizer = _tokenizer(folder, config)
    normalise = read_normaliser(folder / PREPROCESSOR)
    leaves = fitting(folder, {COMPONENT: config})
    params = read_weights(folder, leaves, dtype, mesh or host_mesh())
    return Clip(str(where), config, params[COMPONENT.key], tokenizer, normalise)


def _tokenizer(folder: Path, config: CLIPConfig) -> Any:
    """The folder's tokenizer, which cuts captions to what the text tower has positions for."""
    tokenizer, text = read_tokenizer(folder), config.text
    if len(tokenizer) > text.vocab_size:
        raise UserError(
            f"The tokenizer in {folder} belongs to another model: it has {len(tokenizer)} tokens "
            f"but the text_config's vocab_size is {text.vocab_size}."
        )
    if text.end_token not in (LEGACY_END, tokenizer.eos_token_id):
        raise UserError(
            f"The tokenizer in {folder} belongs to another model: its end token is "
            f"{tokenizer.eos_token_id} but the text_config's eos_token_id is {text.end_token}."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, text.positions)
    return tokenizer
