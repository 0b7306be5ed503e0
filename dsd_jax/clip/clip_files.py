"""A CLIP's folder in the layout of transformers' `CLIPModel`: finding, loading and saving it."""

import functools
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from jax.sharding import Mesh
from pydantic import Field

from dsd_jax.clip.clip_model import LEGACY_END, Clip, Normalizer
from dsd_jax.distributed.devices import check_devices
from dsd_jax.distributed.sharding import host_mesh
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import list_folder, read_json, write_json
from dsd_jax.io.validation import List, parse
from dsd_jax.models.clip import CLIPConfig, abstract_params
from dsd_jax.models.components import Component
from dsd_jax.models.json_config import ConfigFile
from dsd_jax.weights import hub
from dsd_jax.weights.component_files import read_config
from dsd_jax.weights.model_folder import local_path
from dsd_jax.weights.model_loading import fitting, float_type, read_weights
from dsd_jax.weights.model_saving import swap, write_params
from dsd_jax.weights.tokenizer_files import read_tokenizer, write_tokenizer

COMPONENT = Component(
    folder=".",
    key="clip",
    classes=("CLIPModel",),
    torch_stem="model",
    flax_stem="flax_model",
    read_config=CLIPConfig.from_json,
    abstract_params=functools.cache(abstract_params),
    model="a CLIP, such as openai/clip-vit-base-patch32",
)
PREPROCESSOR = "preprocessor_config.json"
BUNDLED = Path(__file__).parent.parent / "assets" / "tiny-clip"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
_LAYOUT = "a folder with config.json, model.safetensors and a tokenizer, as of a CLIPModel"
_KIND = hub.ModelKind(
    files=(PREPROCESSOR, *_TOKENIZER),
    find_components=lambda *_: (COMPONENT,),
    all_components=(COMPONENT,),
    noun="CLIP",
    bundled="tiny-clip",
    layout=_LAYOUT,
)

_Mean = Annotated[List[Annotated[float, Field(ge=-1e3, le=1e3)]], Field(min_length=3, max_length=3)]
_Std = Annotated[List[Annotated[float, Field(ge=1e-3, le=1e3)]], Field(min_length=3, max_length=3)]


class _PreprocessorFile(ConfigFile):
    """The fields of `preprocessor_config.json` that decide how pixels are normalized."""

    image_mean: _Mean | None = None
    image_std: _Std | None = None
    do_normalize: Literal[True] | None = True
    do_rescale: Literal[True] | None = True
    rescale_factor: Annotated[float, Field(ge=0.99 / 255, le=1.01 / 255)] | None = 1 / 255


def find_clip(where: str | os.PathLike) -> Path:
    """Return the local folder of a CLIP: "tiny-clip", a folder, or "org/name[@revision]".

    A folder goes before a model of that name on the Hub.

    Raises:
        UserError: there is no CLIP.
    """
    if where == "tiny-clip":
        return BUNDLED
    folder = local_path(where)
    if where != "" and folder.is_dir():
        return _check_folder(folder)
    return _check_folder(hub.fetch_named(where, _KIND))


def _check_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    if (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is a diffusion pipeline and no CLIP; expected {_LAYOUT}.")
    content = ", ".join(list_folder(folder)[:12]) or "nothing"
    raise UserError(f"{folder} is no CLIP: expected {_LAYOUT}, found {content}.")


def load_clip(where: str | os.PathLike, dtype: Any = jnp.float32, mesh: Mesh | None = None) -> Clip:
    """Load a CLIP as OpenAI and LAION published them.

    Args:
        where: "tiny-clip", the bundled one; a folder in the layout of transformers' `CLIPModel`
            (`config.json`, `model.safetensors` or `flax_model.msgpack`, a tokenizer's files and,
            if pixels are not normalized as OpenAI's are, `preprocessor_config.json`); or a model
            on the Hub, as "org/name" or "org/name@revision", of which only these are fetched.
        dtype: float type of all params but the logit scale, in which matrix products run.
        mesh: this host's devices, see `sharding.host_mesh`; by default each has all params.

    Raises:
        UserError: no such model, or a file of it is missing, damaged or of an unsupported kind; or
            params are missing, extra, of another shape or not finite.
    """
    check_devices()
    dtype = float_type(dtype)
    folder = find_clip(where)
    config = read_config(folder, COMPONENT)
    tokenizer = _read_tokenizer(folder, config)
    normalize = read_normalizer(folder / PREPROCESSOR)
    leaves = fitting(folder, {COMPONENT: config})
    params = read_weights(folder, leaves, dtype, mesh or host_mesh())
    return Clip(str(where), config, params[COMPONENT.key], tokenizer, normalize)


def _read_tokenizer(folder: Path, config: CLIPConfig) -> Any:
    """Read the folder's tokenizer, which cuts captions to the text tower's positions."""
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


def read_normalizer(file: Path) -> Normalizer:
    """Read mean and std of the channels; OpenAI's where they, or the file, are missing.

    Raises:
        UserError: the file can't be read, or asks for something else to be done to pixels.
    """
    if not os.path.lexists(file):
        return Normalizer()
    remedy = "use the preprocessor_config.json that transformers wrote for this CLIP"
    content = parse(_PreprocessorFile, read_json(file), str(file), remedy)
    stated = {"mean": content.image_mean, "std": content.image_std}
    return Normalizer(**{name: values for name, values in stated.items() if values is not None})


def save_clip(clip: Clip, folder: str | os.PathLike, dtype: Any = jnp.float16) -> None:
    """Write `clip` so that transformers' `CLIPModel` and `load_clip` read it.

    Files of the same names are replaced, all of them at the end and by renaming; others stay.

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
    """Return the `preprocessor_config.json` with which transformers prepares square images so."""
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
        "image_mean": list(clip.normalize.mean),
        "image_std": list(clip.normalize.std),
        "do_convert_rgb": True,
    }
