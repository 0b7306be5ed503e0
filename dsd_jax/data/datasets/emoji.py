"""The emoji benchmark: prepared once into a cache folder, then read from there item by item."""

import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.prepared_folder import build, prepared, read_prepared
from dsd_jax.data.synthetic.triples import ARTISTS, SPLITS
from dsd_jax.errors import UserError
from dsd_jax.io.images import FITS, read_content
from dsd_jax.io.local_files import cache_folder, expand

IMAGES = ("positive", "negative")


def benchmark() -> Benchmark:
    """The emoji benchmark, as others are opened; `load_items` reads its splits."""
    return Benchmark("emoji", tuple(split_names()), load_items)


def split_names() -> list[str]:
    """What `load_items` can load: `seen-artists/shots` to `unseen-artist/test`."""
    return [f"{artists}/{split}" for artists in ARTISTS for split in SPLITS]


def load_items(split: str, data_dir: str | os.PathLike | None = None) -> Examples:
    """The items of one of `split_names()`, such as `unseen-artist/test`.

    The first call for a group of artists prepares its three splits (about ten seconds) in
    `data_dir`, the folder of caches by default; that may be killed, or run many times at once.
    Raises UserError for an unknown split, a folder that can't be written and a damaged copy.
    """
    if split not in split_names():
        raise UserError(f"Unknown split {split!r}: choose one of {', '.join(split_names())}.")
    artists, name = split.split("/")
    folder = prepare(artists, expand(data_dir or cache_folder()))
    with read_prepared(folder):
        return read_items(folder, name)


def prepare(artists: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The folder with the items of `artists`, written first if it isn't there."""
    from dsd_jax.data.datasets.emoji_builder import Emoji  # takes seconds to import

    place = pathlib.Path("emoji") / artists / str(Emoji.VERSION)

    def write(temporary: pathlib.Path) -> pathlib.Path:
        print(
            f"Preparing the emoji benchmark's {artists} in {data_dir / place}, once.",
            file=sys.stderr,
        )
        build(Emoji(data_dir=temporary, config=artists, file_format="array_record"))
        return temporary / place

    return prepared(data_dir, place, write)


def read_items(folder: pathlib.Path, split: str) -> Examples:
    """The items of `split` in a folder that `prepare` wrote; no picture is decoded yet."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    as_bytes = {name: tfds.decode.SkipDecoding() for name in IMAGES}
    source = builder.as_data_source(split, decoders=as_bytes)
    rows = [source[i] for i in range(len(source))]
    if [row["id"] for row in rows] != list(range(SPLITS[split])):
        raise ValueError(f"{len(rows)} items of {split} instead of {SPLITS[split]}")
    return Examples(
        [(row["caption"].decode(),) for row in rows],
        [tuple((number, name) for name in IMAGES) for number in range(len(rows))],
        [builder.info.features["kind"].int2str(int(row["kind"])) for row in rows],
        range(len(rows)),
        partial(read_picture, source),
    )


def read_picture(records: Sequence[Mapping[str, Any]], key: tuple[int, str], size: int):
    """The picture of a number and a name of IMAGES, uint8 (size, size, 3)."""
    number, name = key
    return read_content(records[number][name], size, FITS[0], f"emoji picture {number}")
