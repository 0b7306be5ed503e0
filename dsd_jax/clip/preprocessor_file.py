"""The fields of a CLIP's `preprocessor_config.json` that decide what is done to pixels, checked."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dsd_jax.clip.normalisation import Normaliser
from dsd_jax.io.local_files import read_json
from dsd_jax.io.validation import List, parse
from dsd_jax.models.json_config import ConfigFile

_Mean = Annotated[List[Annotated[float, Field(ge=-1e3, le=1e3)]], Field(min_length=3, max_length=3)]
_Std = Annotated[List[Annotated[float, Field(ge=1e-3, le=1e3)]], Field(min_length=3, max_length=3)]


class _PreprocessorFile(ConfigFile):
    """What transformers calls its fields; pixels in [0, 1] are normalised by the first two."""

    image_mean: _Mean | None = None
    image_std: _Std | None = None
    do_normalize: Literal[True] | None = True
    do_rescale: Literal[True] | None = True
    rescale_factor: Annotated[float, Field(ge=0.99 / 255, le=1.01 / 255)] | None = 1 / 255


def read_normaliser(file: Path) -> Normaliser:
    """Return what the file says of pixels; OpenAI's numbers where it, or the file, is missing.

    Raises:
        UserError: the file can't be read, or says that something else is done to pixels.
    """
    if not os.path.lexists(file):
        return Normaliser()
    remedy = "use the preprocessor_config.json that transformers wrote for this CLIP"
    stated = parse(_PreprocessorFile, read_json(file), str(file), remedy)
    found = {"mean": stated.image_mean, "std": stated.image_std}
    return Normaliser(**{name: values for name, values in found.items() if values is not None})
