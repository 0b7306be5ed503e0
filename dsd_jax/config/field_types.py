"""Types of config values, each with its range: counts, rates, seeds, paths."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator

from dsd_jax.io.terminal import shorten

_MAX_NAME = 255  # bytes, of what stands between two slashes: the limit of common file systems
_MAX_PATH = 4096  # bytes
_MAX_ITEMS = 10**9
_MAX_DEVICES = 1024


def _check_path(text: str) -> str:
    """Return `text`, or raise ValueError where no file system has such a path."""
    if "\0" in text:
        raise ValueError("has a NUL character, which no path has")
    size = len(os.fsencode(text))
    if size > _MAX_PATH or any(len(os.fsencode(name)) > _MAX_NAME for name in text.split("/")):
        raise ValueError(
            f"has {size} bytes, expected at most {_MAX_NAME} in each name of a path and "
            f"{_MAX_PATH} in all"
        )
    if text.startswith("~"):
        try:
            Path(text).expanduser()
        except RuntimeError as error:
            home = text.partition("/")[0]
            raise ValueError(
                f"starts with {home}, but no such user has a home folder here; write the whole path"
            ) from error
    return text


def _check_different(values: tuple) -> tuple:
    """Return `values`, or raise ValueError where a value occurs twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"has {value!r} twice, expected different ones; drop one")
    return values


def _check_part(part: float) -> float:
    """Return a part of a split, or raise ValueError where it is neither a part nor a number."""
    if part >= 1 and (part != int(part) or part < 2):
        raise ValueError(
            f"is {part!r}, expected a part (less than 1) or a whole number of items (2 or more)"
        )
    return part


def _check_label(label: str) -> str:
    """Return a label, or raise ValueError where it is no name for a folder."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}", label):
        raise ValueError(
            "is no name for a folder, expected at most 100 letters, digits and _ . + = -"
        )
    return label


def _check_shots(asked: Any) -> int | float:
    """Return a number of shots, or raise ValueError where it is neither a number nor a part."""
    is_part = type(asked) is float and 0 < asked <= 1
    is_count = type(asked) in (int, float) and 2 <= asked <= _MAX_ITEMS and asked == int(asked)
    if not (is_part or is_count):
        raise ValueError(
            f"is {shorten(asked)}, expected a number of items (2 or more), or a fraction up to 1.0"
        )
    return asked


def _check_devices(count: int) -> int:
    """Return a number of CPU devices, or raise ValueError where it is out of range."""
    if count != -1 and not 1 <= count <= _MAX_DEVICES:
        raise ValueError(
            f"is {shorten(count)}, expected 1 to {_MAX_DEVICES}, or -1 for as many as there are"
        )
    return count


def _check_steps(text: str) -> str:
    """Return a part of a training, or raise ValueError where it is not START:STEPS."""
    if text and not re.fullmatch(r"\d{1,9}:[1-9]\d{0,3}", text, re.ASCII):
        raise ValueError(
            f"is {shorten(text)}, expected START:STEPS, such as 10:3 for the 3 steps after the "
            "first 10"
        )
    return text


Count = Annotated[int, Field(ge=1, le=10_000_000)]  # of steps, items
Size = Annotated[int, Field(ge=1, le=65_536)]  # of a dimension of an array
Timesteps = Annotated[int, Field(ge=1, le=1000)]
Rate = Annotated[float, Field(ge=0, le=1000)]  # of learning, of decay
Weight = Annotated[float, Field(ge=0, le=1_000_000)]  # of a part of a loss
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Label = Annotated[str, AfterValidator(_check_label)]  # a part of the names of folders
SomePath = Annotated[str, Field(min_length=1), AfterValidator(_check_path)]
PathText = Annotated[str, AfterValidator(_check_path)]  # a path, an id on the Hub, or ""
Different = AfterValidator(_check_different)
Part = Annotated[float, Field(ge=0, le=_MAX_ITEMS), AfterValidator(_check_part)]
ShotCount = Annotated[int | float, PlainValidator(_check_shots)]
Tracker = Literal["", "tensorboard", "wandb", "trackio"]
TRACKER = 'what else gets the metrics of training: "tensorboard", "wandb", "trackio" or ""'
ProfiledSteps = Annotated[str, AfterValidator(_check_steps)]
PROFILE = 'steps of each training that JAX profiles into the workdir, as START:STEPS; "" for none'
CPUDevices = Annotated[int, AfterValidator(_check_devices)]
