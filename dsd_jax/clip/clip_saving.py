"""From a `Clip` to a folder that transformers' `CLIPModel` loads too."""

import os
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from dsd_jax.clip.clip_component import COMPONENT, PREPROCESSOR
from dsd_jax.clip.matcher import Clip
from dsd_jax.io.local_files import write_json
from dsd_jax.weights.model_saving import swap, write_params
from dsd_jax.weights.tokenizer_files import write_tokenizer


def save_clip(clip: Clip, folder: str | os.PathLike, dtype: Any = jnp.float16) -> None:
    """Writes `clip` in the layout of transformers' `CLIPModel`, so that `load_clip` reads it too.

    Files that are there already are replaced, all of them at the end and by renaming; others stay.

    Raises:
        UserError: a parameter is too large for `dtype`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as name:
        new = Path(name) / "new"
        write_tokenizer(clip.tokenizer, new)
        write_json(new / "config.json", clip.config.to_json())
        write_json(new / PREPROCESSOR, _preprocessor(clip))
        write_params(new, COMPONENT, clip.params, dtype=jnp.dtype(dtype), format="safetensors")
        swap(new, folder, Path(name) / "old")


def _preprocessor(clip: Clip) -> dict[str, Any]:
    """The `preprocessor_config.json` by which transformers prepares square pictures alike."""
    size = clip.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(clip.normalise.mean),
        "image_std": list(clip.normalise.std),
        "do_convert_rgb": True,
    }
