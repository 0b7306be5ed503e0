"""Winoground: two captions of the same words and two pictures, each of which fits one of them.

From https://huggingface.co/datasets/facebook/winoground, for research alone, after accepting its
conditions (pictures are Getty Images'). 400 items in either of two layouts:

    data/test-00000-of-00001-*.parquet    columns id, image_0, image_1 (the pictures' bytes),
                                          caption_0, caption_1, collapsed_tag, ...
    data/examples.jsonl, data/images/     as it came before: {"image_0": "ex_0_img_0", ...}, and
                                          images.zip unpacked

Caption i fits picture i. The kind is `collapsed_tag`: Object, Relation or Both.
"""

import io
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dsd_jax.data.compositional import open_layout
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.images import read_image
from dsd_jax.data.layouts import WINOGROUND
from dsd_jax.data.pieces import existing_folder
from dsd_jax.data.rows import Row, to_examples
from dsd_jax.data.tables import not_empty
from dsd_jax.errors import UserError

TEXTS = ("id", "caption_0", "caption_1", "collapsed_tag")
IMAGES = ("image_0", "image_1")


def benchmark(folder: str, fit: str = "stretch") -> Benchmark:
    """One split, "all".

    Args:
        folder: what holds the parquet files (or its `data/` does), or examples.jsonl.
        fit: how pictures become square; see `images.FITS`.

    Raises:
        UserError: the folder isn't there.
    """
    root = existing_folder(folder)
    files = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if not files:
        return open_layout("winoground", WINOGROUND, folder, "", fit)
    return Benchmark("winoground", ("all",), partial(load_parquet, files, fit))


def load_parquet(files: Sequence[Path], fit: str, split: str) -> Examples:
    """The items of parquet files; pictures stay in them until they are read."""
    del split  # there is one
    tables = [Table(path) for path in files]
    rows = [row for number, table in enumerate(tables) for row in table.rows(number)]
    return to_examples(not_empty(files[0], rows), partial(read_picture, tables, fit))


def read_picture(tables: Sequence["Table"], fit: str, key: tuple[int, int, str], size: int):
    """The picture of (number of the table, row, column), uint8 (size, size, 3)."""
    number, row, column = key
    table = tables[number]
    content = table.picture(row, column)
    try:
        picture = Image.open(io.BytesIO(content))
        return read_image(picture, size, fit)
    except (OSError, UserError) as error:
        raise UserError(
            f"{column} of row {row} of {table.path} cannot be read ({error})."
        ) from error


class Table:
    """A parquet file whose pictures are read one group of rows at a time.

    The last group stays in memory, for neighbours are usually asked for next.
    """

    def __init__(self, path: Path):
        import pyarrow.parquet  # takes a while to import

        self.path = path
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} is no parquet file ({error}); get it again.") from error
        lacking = [name for name in (*TEXTS, *IMAGES) if name not in self._file.schema_arrow.names]
        if lacking:
            raise UserError(f"{path} has no column {', '.join(lacking)}; is it Winoground's?")
        groups = self._file.metadata.num_row_groups
        counts = [self._file.metadata.row_group(i).num_rows for i in range(groups)]
        self._starts = np.cumsum([0, *counts])
        self._last: tuple[int, pyarrow.Table] | None = None
        self._lock = threading.Lock()  # several threads read pictures

    def rows(self, number: int) -> list[Row]:
        """The items, whose pictures' keys start with `number`."""
        columns = self._file.read(columns=list(TEXTS)).to_pylist()
        return [
            Row(
                (row["caption_0"], row["caption_1"]),
                tuple((number, place, name) for name in IMAGES),
                row["collapsed_tag"],
                row["id"],
            )
            for place, row in enumerate(columns)
        ]

    def picture(self, row: int, column: str) -> bytes:
        """A picture's file, as the table holds it: bytes, or a struct with them.

        Raises:
            UserError: it holds none.
        """
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            if self._last is None or self._last[0] != group:
                self._last = group, self._file.read_row_group(group, columns=list(IMAGES))
            value = self._last[1].column(column)[row - int(self._starts[group])].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise UserError(f"{column} of row {row} of {self.path} holds no picture.")
        return content
