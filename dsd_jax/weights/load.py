"""From a model's folder to a `Model`: every tensor accounted for, then converted one by one."""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax.errors import UserError
from dsd_jax.model import Model
from dsd_jax.sharding import host_mesh, place_weight
from dsd_jax.weights.component import COMPONENTS, TEXT, UNET, VAE
from dsd_jax.weights.configs import abstract_params, read_config, read_schedule
from dsd_jax.weights.files import read_headers
from dsd_jax.weights.fit import Leaf, fit
from dsd_jax.weights.folder import find
from dsd_jax.weights.names import unflatten
from dsd_jax.weights.tokenizer import read_tokenizer


def load(where: str | os.PathLike, dtype: Any = jnp.float32, mesh: Mesh | None = None) -> Model:
    """Loads a Stable Diffusion 1.x or 2.x model.

    Args:
        where: "tiny", the bundled model; a folder in the Hugging Face layout (`unet/`, `vae/`,
            `text_encoder/`, `tokenizer/`, `scheduler/`), with safetensors or Flax msgpack in
            float16, bfloat16 or float32, whole or sharded; or a model on the Hub, as "org/name"
            or "org/name@revision", of which only what is needed is fetched.
        dtype: float type of all parameters, in which matrix products run.
        mesh: of this host's devices, from `sharding.host_mesh`; by default every device has a whole
            copy.

    Returns:
        The model, each parameter placed as `sharding.TABLE` says while the next is read.

    Raises:
        UserError: no such model, or a file of it is missing, damaged or of an unsupported kind; or
            parameters are missing, extra, of another shape or not finite, all of them listed in
            one message. All but the last is found before any weights are read.
    """
    dtype = float_type(dtype)
    folder = find(where)
    configs = {part.key: read_config(folder, part) for part in COMPONENTS}
    schedule = read_schedule(folder)
    tokenizer = read_tokenizer(folder / "tokenizer")
    _check_one_model(folder, configs, len(tokenizer))
    leaves = fitting(folder, configs)
    return Model(
        name=str(where),
        **configs,
        schedule=schedule,
        params=_read(folder, leaves, dtype, mesh or host_mesh()),
        tokenizer=tokenizer,
        image_size=configs[UNET.key].sample_size * configs[VAE.key].downscale,
    )


def float_type(dtype: Any) -> np.dtype:
    """The type of numbers that weights can have; `UserError` for any other."""
    try:
        dtype = jnp.dtype(dtype)
    except TypeError as error:
        raise UserError(f"dtype {dtype!r} is no type of numbers; use jnp.float32.") from error
    if dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        raise UserError(f"dtype {dtype} can't hold weights; use float32, bfloat16 or float16.")
    return dtype


def _check_one_model(folder: Path, configs: dict[str, Any], tokens: int) -> None:
    """The parts must go together: they could come from different models."""
    unet, vae, text = (configs[component.key] for component in (UNET, VAE, TEXT))
    for (one, value), (other, expected) in (
        (("unet's cross_attention_dim", unet.cross_attention_dim),
         ("text_encoder's hidden_size", text.hidden_size)),
        (("unet's in_channels", unet.in_channels), ("vae's latent_channels", vae.latent_channels)),
    ):  # fmt: skip
        if value != expected:
            raise UserError(
                f"The parts in {folder} belong to different models: the {one} is {value} but the "
                f"{other} is {expected}."
            )
    if tokens > text.vocab_size:
        raise UserError(
            f"The tokenizer in {folder} belongs to another model: it has {tokens} tokens but the "
            f"text_encoder's vocab_size is {text.vocab_size}."
        )


def fitting(folder: Path, configs: dict[str, Any]) -> dict[str, list[Leaf]]:
    """Where every parameter of every component is stored; one `UserError` with all that's wrong."""
    leaves, problems = {}, []
    for component in COMPONENTS:
        abstract = abstract_params(folder, component, configs[component.key])
        stored = read_headers(folder / component.folder, component)
        leaves[component.key], lines = fit(component, abstract, stored)
        problems += lines
    if problems:
        raise UserError(
            f"The weights in {folder} do not fit the configs there; use weights and config.json of "
            "one and the same model:\n" + "\n".join(problems)
        )
    return leaves


def _read(
    folder: Path, leaves: dict[str, list[Leaf]], dtype: np.dtype, mesh: Mesh
) -> dict[str, Any]:
    """Converts tensor by tensor, so that the peak is the parameters and little more."""
    params, broken = {}, []
    for component in COMPONENTS:
        tree = {}
        for leaf in leaves[component.key]:
            array = leaf.read(dtype)
            if not np.isfinite(array).all():
                broken.append(f"  {component.folder}: {leaf.stored.name}")
            tree[leaf.path] = place_weight("/".join(leaf.path), array, mesh)
        params[component.key] = unflatten(tree)
    if broken:
        shown = "\n".join(broken[:20]) + ("\n  ..." if len(broken) > 20 else "")
        raise UserError(
            f"{len(broken)} tensors in {folder} hold NaN or infinite numbers as {dtype}; fetch the "
            f"model again, or load it in another dtype:\n{shown}"
        )
    return params
