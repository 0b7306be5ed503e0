"""The emoji benchmark: prepared once into a cache folder, then read from there item by item."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.prepared_folder import build, open_records, prepared, read_prepared
from dsd_jax.data.synthetic.triples import ARTISTS, IMAGES, SPLITS
from dsd_jax.errors import UserError
from dsd_jax.io.images import FITS, read_content
from dsd_jax.io.local_files import cache_folder, expand
from dsd_jax.io.progress import Stage


def benchmark() -> Benchmark:
    """Open the emoji benchmark, whose splits `load_items` reads."""
    return Benchmark("emoji", tuple(split_names()), load_items)


def split_names() -> list[str]:
    """Return what `load_items` can load: `seen-artists/shots` to `unseen-artist/test`."""
    return [f"{artists}/{split}" for artists in ARTISTS for split in SPLITS]


def load_items(split: str, data_dir: str | os.PathLike | None = None) -> Examples:
    """Return the items of one of `split_names()`, such as `unseen-artist/test`.

    The first call for a group of artists prepares its three splits (about ten seconds) in
    `data_dir`, the folder of caches by default; that may be killed, or run many times at once.

    Raises:
        UserError: the split is unknown, the folder can't be written or the copy is damaged.
    """
    if split not in split_names():
        raise UserError(f"Unknown split {split!r}: choose one of {', '.join(split_names())}.")
    artists, name = split.split("/")
    folder = prepare(artists, expand(data_dir or cache_folder()))
    with read_prepared(folder):
        return read_items(folder, name)


def prepare(artists: str, data_dir: Path) -> Path:
    """Return the folder with the items of `artists`, written first if it isn't there."""
    from dsd_jax.data.datasets.record_builders import Emoji  # takes seconds to import

    place = Path("emoji") / artists / str(Emoji.VERSION)

    def write(temporary: Path) -> Path:
        print(
            f"Preparing the emoji benchmark's {artists} in {data_dir / place}, once.",
            file=sys.stderr,
        )
        with Stage(f"preparing {artists}"):
            build(Emoji(data_dir=temporary, config=artists, file_format="array_record"))
        return temporary / place

    return prepared(data_dir, place, write)


def read_items(folder: Path, split: str) -> Examples:
    """Return the items of `split` in a folder that `prepare` wrote; no image is decoded yet."""
    builder, source = open_records(folder, split, IMAGES)
    records = [source[i] for i in range(len(source))]
    if [record["id"] for record in records] != list(range(SPLITS[split])):
        raise ValueError(f"{len(records)} items of {split} instead of {SPLITS[split]}")
    kinds = builder.info.features["kind"]
    return Examples(
        [(record["caption"].decode(),) for record in records],
        [tuple((index, name) for name in IMAGES) for index in range(len(records))],
        [kinds.int2str(int(record["kind"])) for record in records],
        range(len(records)),
        partial(read_record, source),
    )


def read_record(
    records: Sequence[Mapping[str, Any]], key: tuple[int, str], size: int
) -> np.ndarray:
    """Return the image of (index of the item, name of IMAGES), uint8 (size, size, 3)."""
    index, name = key
    return read_content(records[index][name], size, FITS[0], f"emoji image {index}")
