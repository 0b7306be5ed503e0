"""Save a `Model` as a folder that PyTorch diffusers loads too."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from dsd_jax.diffusion.pipeline import Model
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import write_json
from dsd_jax.models.components import TEXT_2, Component, components
from dsd_jax.models.params import canonical_name, flatten, torch_axes, unflatten
from dsd_jax.tensor_files import msgpack_file, safetensors_file
from dsd_jax.weights.model_folder import parts
from dsd_jax.weights.tokenizer_files import write_tokenizer

# Entries of diffusers' pipelines beside a model's components.
_SD = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
_SD |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
_XL = {"_class_name": "StableDiffusionXLPipeline"}
_XL |= {"image_encoder": [None, None], "feature_extractor": [None, None]}


def save(
    model: Model,
    folder: str | os.PathLike,
    dtype: Any = jnp.float16,
    format: Literal["safetensors", "msgpack"] = "safetensors",
) -> None:
    """Write `model` in the Hugging Face layout, so that diffusers' pipelines and `load` read it.

    Subfolders that are there already are replaced, all of them at the end and by renaming, so that
    a run cut short leaves them as they were; other files in `folder` stay.

    Args:
        model: what `load` returned, or a model that was just trained.
        folder: created if need be.
        dtype: float type of the files.
        format: `safetensors`, in the names and layout of PyTorch diffusers, or `msgpack`, in those
            of Flax diffusers (up to 0.39) and of `model.params`.

    Raises:
        UserError: a parameter is too large for `dtype`, or `format` is another.
    """
    if format not in ("safetensors", "msgpack"):
        raise UserError(f"format '{format}' is unknown; use 'safetensors' or 'msgpack'.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as name:
        new = Path(name) / "new"
        for component in components(model.params):
            part = new / component.folder
            part.mkdir(parents=True)
            write_json(part / "config.json", getattr(model, component.key).to_json())
            params = model.params[component.key]
            write_params(part, component, params, dtype=jnp.dtype(dtype), format=format)
            if component.tokenizer:
                write_tokenizer(getattr(model, component.tokenizer), new / component.tokenizer)
        scheduler = model.schedule.to_json()
        (new / "scheduler").mkdir()
        write_json(new / "scheduler" / "scheduler_config.json", scheduler)
        write_json(new / "model_index.json", _index(model, scheduler["_class_name"]))
        swap(new, folder, Path(name) / "old")


def write_params(
    part: Path, component: Component, params: Mapping[str, Any], *, dtype: np.dtype, format: str
) -> None:
    """Convert a component's params to `dtype` and write them into the folder `part`.

    Raises:
        UserError: a number is not finite in `dtype`.
    """
    leaves = ((path, np.asarray(leaf)) for path, leaf in flatten(params).items())
    converted = ((path, _converted(component, path, leaf, dtype)) for path, leaf in leaves)
    write_leaves(part, component, converted, format)


def _converted(
    component: Component, path: tuple[str, ...], array: np.ndarray, dtype: np.dtype
) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if not np.isfinite(converted).all():
        raise UserError(
            f"{component.folder}: {'/'.join(path)} holds numbers that are not finite as "
            f"{dtype}; save in float32 or mend the model."
        )
    return converted


def write_leaves(
    part: Path,
    component: Component,
    leaves: Iterable[tuple[tuple[str, ...], np.ndarray]],
    format: str,
) -> None:
    """Write a component's arrays, given as pairs of path and array, into the folder `part`."""
    if format == "msgpack":
        msgpack_file.write(part / f"{component.flax_stem}.msgpack", unflatten(dict(leaves)))
        return
    tensors = {
        canonical_name(path): np.asarray(array.transpose(torch_axes(path, array.ndim)), order="C")
        for path, array in leaves
    }
    safetensors_file.write(part / f"{component.torch_stem}.safetensors", tensors)


def _index(model: Model, scheduler: str) -> dict[str, Any]:
    """Return the `model_index.json` of diffusers' pipeline for this family."""
    ours = components(model.params)
    xl = _XL | {"force_zeros_for_empty_prompt": model.zero_empty}
    classes = {}
    for component in ours:
        library = "transformers" if component.tokenizer else "diffusers"
        classes[component.folder] = [library, component.classes[0]]
        if component.tokenizer:
            classes[component.tokenizer] = [library, "CLIPTokenizer"]
    return {
        "_diffusers_version": "0.10.0",
        "scheduler": ["diffusers", scheduler],
        **classes,
        **(xl if TEXT_2 in ours else _SD),
    }


def swap(new: Path, folder: Path, old: Path) -> None:
    """Move all of `new` into `folder`, and its former parts to `old`, by renaming alone."""
    old.mkdir()
    try:
        for part in set(parts([TEXT_2.folder])) - {source.name for source in new.iterdir()}:
            if (folder / part).exists():  # of an SDXL that stood there
                os.replace(folder / part, old / part)
        for source in sorted(new.iterdir()):
            target = folder / source.name
            if target.exists():
                os.replace(target, old / source.name)
            os.replace(source, target)
    except BaseException:
        for kept in old.iterdir():
            target = folder / kept.name
            if target.exists():
                os.replace(target, new / kept.name)
            os.replace(kept, target)
        raise
