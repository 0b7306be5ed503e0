"""Load a model's folder: fit every tensor to the configs, then convert the tensors one by one."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax.diffusion.pipeline import Model
from dsd_jax.distributed.devices import check_devices, fast_dtype
from dsd_jax.distributed.sharding import host_mesh, place_weight
from dsd_jax.errors import UserError
from dsd_jax.io.progress import UNSEEN, Stage, Work
from dsd_jax.io.terminal import shows_progress
from dsd_jax.models.components import TEXT, TEXT_2, UNET, VAE, Component, components
from dsd_jax.models.params import unflatten
from dsd_jax.weights.component_files import read_config, read_headers
from dsd_jax.weights.model_folder import find, read_index, read_schedule, subfolders
from dsd_jax.weights.strict_fit import Leaf, fit
from dsd_jax.weights.tokenizer_files import read_tokenizer

_MAX_SIDE = 4096  # pixels
# Prefixes that training frameworks put before all names, and published files do not have.
_PREFIXES = ("_orig_mod.", "module.", "model.", "ema_model.", "unet.", "vae.")


def load(
    where: str | os.PathLike,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
    *,
    progress: bool | None = None,
) -> Model:
    """Load a model of the Stable Diffusion 1.x, 2.x or XL families, turbo models too.

    Args:
        where: "tiny", the bundled model; a folder in the Hugging Face layout (`unet/`, `vae/`,
            `text_encoder/`, `tokenizer/`, `scheduler/`; SDXL has `text_encoder_2/` and
            `tokenizer_2/` too), with safetensors or Flax msgpack in float16, bfloat16 or float32,
            whole or sharded; or a model on the Hub, as `org/name` or `org/name@revision`, of which
            only the needed files are fetched.
        dtype: float type of all parameters, in which matrix products run; "auto" is the fastest of
            the device: bfloat16, on older GPUs float16, on CPUs float32.
        mesh: of this host's devices, from `sharding.host_mesh`; by default every device has a whole
            copy.
        progress: whether to show how far it is; by default in a terminal and in a notebook.

    Returns:
        The model, each parameter placed as `sharding.TABLE` says while the next is read.

    Raises:
        UserError: no such model, or a file of it is missing, damaged or of an unsupported kind; or
            parameters are missing, extra, of another shape or not finite, all of them listed in
            one message. All but the last is found before weights are converted.
    """
    check_devices()
    if not isinstance(where, str | os.PathLike):
        raise UserError(f"model is {where!r}; expected a name, a folder or a model on the Hub.")
    dtype = float_type(fast_dtype() if isinstance(dtype, str) and dtype == "auto" else dtype)
    with Stage(f"loading {where}", shown=shows_progress(progress)) as stage:
        return _load(where, dtype, mesh or host_mesh(), stage)


def _load(where: str | os.PathLike, dtype: np.dtype, mesh: Mesh, stage: Stage) -> Model:
    """Load a model as `load` does; a number of its params is a unit of the stage."""
    folder = find(where)
    ours = components(subfolders(folder))
    configs: dict[str, Any] = {part.key: read_config(folder, part) for part in ours}
    schedule = read_schedule(folder)
    with stage.waiting_for("its tokenizers"):
        tokenizers: dict[str, Any] = {
            part.tokenizer: read_tokenizer(folder / part.tokenizer)
            for part in ours
            if part.tokenizer
        }
    _check_one_model(folder, configs, tokenizers)
    leaves = fitting(folder, {part: configs[part.key] for part in ours})
    stage.total = sum(math.prod(leaf.shape) for part in leaves.values() for leaf in part)
    return Model(
        name=str(where),
        **configs,
        **tokenizers,
        schedule=schedule,
        params=read_weights(folder, leaves, dtype, mesh, Work(stage, 1)),
        zero_empty=TEXT_2 in ours and bool(read_index(folder).force_zeros_for_empty_prompt),
        image_size=configs[UNET.key].sample_size * configs[VAE.key].downscale,
    )


def float_type(dtype: Any) -> np.dtype:
    """Return a type as NumPy's; raises `UserError` for one that weights can't have."""
    try:
        dtype = jnp.dtype(dtype)
    except TypeError as error:
        raise UserError(f"dtype {dtype!r} is no type of numbers; use jnp.float32.") from error
    if dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        raise UserError(f"dtype {dtype} can't hold weights; use float32, bfloat16 or float16.")
    return dtype


def _check_one_model(folder: Path, configs: dict[str, Any], tokenizers: dict[str, Any]) -> None:
    """Check that the parts go together, as they could come from different models."""
    unet, vae = configs[UNET.key], configs[VAE.key]
    texts = [(part, configs[part.key]) for part in (TEXT, TEXT_2) if part.key in configs]
    widths = " and ".join(f"{part.folder}'s" for part, _ in texts)
    width, pooled_width = sum(text.hidden_size for _, text in texts), texts[-1][1].projection
    for name, value, other, expected in (
        ("unet's cross_attention_dim", unet.cross_attention_dim, f"{widths} hidden_size", width),
        ("unet's in_channels", unet.in_channels, "vae's latent_channels", vae.latent_channels),
        (
            "unet's width of pooled text",
            unet.pooled_dim,
            "text_encoder_2's projection_dim",
            pooled_width,
        ),
    ):
        if value != expected:
            raise UserError(
                f"The parts in {folder} belong to different models: the {name} is {value} but the "
                f"{other} is {expected}."
            )
    if (side := unet.sample_size * vae.downscale) > _MAX_SIDE:
        raise UserError(
            f"{folder}: unet's sample_size {unet.sample_size} stands for images of {side} pixels "
            f"a side; expected at most {_MAX_SIDE}."
        )
    lengths = {tokenizer.model_max_length for tokenizer in tokenizers.values()}
    if len(lengths) > 1:
        raise UserError(
            f"The tokenizers in {folder} read {' and '.join(map(str, sorted(lengths)))} tokens; "
            "expected one number, model_max_length of both tokenizer_config.json."
        )
    for part, text in texts:
        _check_tokenizer(folder, part, text, tokenizers[part.tokenizer])


def _check_tokenizer(folder: Path, part: Component, text: Any, tokenizer: Any) -> None:
    if len(tokenizer) > text.vocab_size:
        raise UserError(
            f"The {part.tokenizer} in {folder} belongs to another model: it has {len(tokenizer)} "
            f"tokens but the {part.folder}'s vocab_size is {text.vocab_size}."
        )
    if tokenizer.model_max_length > text.positions:
        raise UserError(
            f"{folder / part.tokenizer}: model_max_length is {tokenizer.model_max_length} but the "
            f"{part.folder} has {text.positions} positions; set it to {text.positions}."
        )


def fitting(folder: Path, configs: Mapping[Component, Any]) -> dict[str, list[Leaf]]:
    """Return for each component, by its key, where every one of its params is stored.

    Raises:
        UserError: files are missing or damaged, or tensors don't fit; lists all problems.
    """
    leaves, problems, prefixes = {}, [], set()
    for component, config in configs.items():
        abstract = component.abstract_params(config)
        stored = read_headers(folder / component.folder, component)
        leaves[component.key], lines = fit(component, abstract, stored)
        problems += lines
        prefixes |= {x for x in _PREFIXES if lines and all(t.name.startswith(x) for t in stored)}
    if problems:
        remedy = "use weights and config.json of one and the same model"
        if prefixes:
            remedy = f"take '{prefixes.pop()}' off the names of all tensors and save them again"
        raise UserError(
            f"The weights in {folder} do not fit the configs there; {remedy}:\n"
            + "\n".join(problems)
        )
    return leaves


def read_weights(
    folder: Path, leaves: dict[str, list[Leaf]], dtype: np.dtype, mesh: Mesh, work: Work = UNSEEN
) -> dict[str, Any]:
    """Return params by component key, converted and placed tensor by tensor to save memory.

    Scalars are float32: only CLIP has one, of which an exponential is taken.

    Args:
        folder: the model's folder, for messages.
        leaves: what `fitting` returned.
        dtype: float type of all other params.
        mesh: devices to place params on.
        work: of whose stage a number is a unit.

    Raises:
        UserError: numbers are not finite in `dtype`.
    """
    params, broken = {}, []
    for key, component_leaves in leaves.items():
        placed = {}
        for leaf in component_leaves:
            array = leaf.read(dtype if leaf.shape else np.dtype(np.float32))
            if not np.isfinite(array).all():
                broken.append(f"  {leaf.stored.file.path.parent.name}: {leaf.stored.name}")
            placed[leaf.path] = place_weight("/".join(leaf.path), array, mesh)
            work.advance(array.size)
        params[key] = unflatten(placed)
    if broken:
        shown = "\n".join(broken[:20]) + ("\n  ..." if len(broken) > 20 else "")
        raise UserError(
            f"{len(broken)} tensors in {folder} hold NaN or infinite numbers as {dtype}; fetch the "
            f"model again, or load it in another dtype:\n{shown}"
        )
    return params
