"""The emoji benchmark: prepared once into a cache folder, then read from there item by item."""

import contextlib
import io
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from PIL import Image

from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.images import read_image
from dsd_jax.data.triples import ARTISTS, SPLITS
from dsd_jax.errors import UserError

IMAGES = ("positive", "negative")
UNFINISHED = "unfinished-"  # starts the name of a folder that is being written, or was until a kill
FORGOTTEN_AFTER = 24 * 3600  # seconds until such a folder is nobody's any more


def benchmark() -> Benchmark:
    """The emoji benchmark, as others are opened; `load_items` reads its splits."""
    return Benchmark("emoji", tuple(split_names()), load_items)


def split_names() -> list[str]:
    """What `load_items` can load: `seen-artists/shots` to `unseen-artist/test`."""
    return [f"{artists}/{split}" for artists in ARTISTS for split in SPLITS]


def load_items(split: str, data_dir: str | os.PathLike | None = None) -> Examples:
    """The items of one of `split_names()`, such as `unseen-artist/test`.

    The first call for a group of artists prepares its three splits (about ten seconds) in
    `data_dir`, `~/.cache/dsd_jax` by default; that may be killed, or run many times at once.
    Raises UserError for an unknown split, a folder that can't be written and a damaged copy.
    """
    if split not in split_names():
        raise UserError(f"Unknown split {split!r}: choose one of {', '.join(split_names())}.")
    artists, name = split.split("/")
    folder = prepare(artists, pathlib.Path(data_dir or pathlib.Path.home() / ".cache" / "dsd_jax"))
    try:
        return read_items(folder, name)
    except Exception as error:
        raise UserError(f"{folder} is damaged ({error}): delete it and run again.") from error


def prepare(artists: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The folder with the items of `artists`, written first if it isn't there.

    It is written under another name and renamed when complete, so it is there whole or not at all.
    """
    import tensorflow_datasets as tfds

    from dsd_jax.data.emoji_builder import Emoji

    place = pathlib.Path("emoji") / artists / str(Emoji.VERSION)
    folder = data_dir / place
    if folder.exists():
        return folder
    print(f"Preparing the emoji benchmark's {artists} in {folder}, once.", file=sys.stderr)
    tfds.disable_progress_bar()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_forgotten(data_dir)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=data_dir) as temporary:
            # tensorflow-datasets prints that it downloads, which it does not.
            with contextlib.redirect_stdout(io.StringIO()):
                Emoji(
                    data_dir=temporary, config=artists, file_format="array_record"
                ).download_and_prepare()
            move(pathlib.Path(temporary) / place, folder)
    except OSError as error:
        raise UserError(
            f"Can't write the benchmark into {data_dir} ({error.strerror}): "
            "name a folder that can be written."
        ) from error
    return folder


def move(source, target):
    """Renames a folder, unless somebody else, making the same one, was faster."""
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise


def remove_forgotten(data_dir):
    """Deletes what killed preparations left behind long ago."""
    for folder in data_dir.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else deletes it
            if folder.stat().st_mtime < time.time() - FORGOTTEN_AFTER:
                shutil.rmtree(folder, ignore_errors=True)


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
    return read_image(Image.open(io.BytesIO(records[number][name])), size)
