"""The benchmark that a config's `data` describes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dsd_jax.benchmarks.prepared_copy import with_prepared_copy
from dsd_jax.benchmarks.splitting import SplitRule, apply_split_rule
from dsd_jax.config.data_config import AnyData, DataConfig, EmojiData, FolderData
from dsd_jax.data.data_folder import FOLDER_FIELD
from dsd_jax.data.datasets import (
    classification,
    compositional,
    comvg,
    custom,
    emoji,
    refcocog,
    vqa,
    winoground,
)
from dsd_jax.data.examples import Benchmark, Examples, skip_unreadable
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import cache_folder
from dsd_jax.io.validation import Checked, parse

READERS: dict[str, Callable[..., Benchmark]] = {
    "emoji": emoji.benchmark,
    "comvg": comvg.benchmark,
    "refcocog": refcocog.benchmark,
    "vqa": vqa.benchmark,
    "winoground": winoground.benchmark,
    "compositional": compositional.benchmark,
    "classify": classification.benchmark,
    "own": custom.benchmark,
}
# Fields of every folder that the readers do not take.
_COMMON = FolderData.model_fields.keys() - {"folder", "fit"}


class _Settings(Checked):
    data: AnyData


def open_benchmark(data: DataConfig | Mapping[str, Any]) -> Benchmark:
    """Return the benchmark that a config describes.

    Args:
        data: which, and how it is read; a mapping of fields is checked first. With `made` a
            small data set of emoji scenes in the benchmark's layout is written into the user's
            cache and read instead of `folder`. With `damaged` "skip" all images are read
            first, and the items of those that cannot be read are left out.

    Returns:
        A benchmark whose `load` looks at a split's files; it lists images, but reads none.

    Raises:
        UserError: there is no such folder, or the reader says so.
    """
    if isinstance(data, Mapping):
        data = parse(_Settings, {"data": dict(data)}, "settings").data
    if isinstance(data, FolderData):
        data = _with_folder(data)
    fields = type(data).model_fields.keys() - _COMMON
    benchmark = READERS[data.name](**{field: getattr(data, field) for field in sorted(fields)})
    if isinstance(data, FolderData):
        rule = SplitRule(data.split_rule, data.shots_part, data.validation_part, data.split_seed)
        benchmark = apply_split_rule(benchmark, rule)
        if data.damaged == "skip":
            benchmark = benchmark._replace(load=partial(_load_readable, benchmark))
    if isinstance(data, EmojiData | FolderData) and data.prepared:
        described = {**_prepared_defaults(), **data.model_dump()}
        benchmark = with_prepared_copy(benchmark, data.prepared, described, data.prepared_size)
    return benchmark


def _with_folder(data: FolderData) -> FolderData:
    """Return the same with a folder to read; raises `UserError` where none is named."""
    if data.made:
        layout = getattr(data, "layout", data.name)
        return data.model_copy(update={"folder": str(made_folder(layout, cache_folder()))})
    if not data.folder:
        raise UserError(f"{FOLDER_FIELD} is not set; name the folder that holds the data.")
    return data


def _prepared_defaults() -> dict[str, Any]:
    """Return the defaults that the names of prepared copies include, set or not."""
    return {name: FolderData.model_fields[name].get_default() for name in _COMMON - {"name"}}


def _load_readable(benchmark: Benchmark, split: str) -> Examples:
    """Return a split without items whose images are damaged."""
    return skip_unreadable(benchmark.load(split), f"{benchmark.name} {split}")
