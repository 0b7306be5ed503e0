"""Winoground: two captions of the same words and two pictures, each of which fits one of them.

From https://huggingface.co/datasets/facebook/winoground, for research alone, after accepting its
conditions (pictures are Getty Images'). 400 items in either of two layouts:

    data/test-00000-of-00001-*.parquet    columns id, image_0, image_1 (the pictures' bytes),
                                          caption_0, caption_1, collapsed_tag, ...
    data/examples.jsonl, data/images/     as it came before: {"image_0": "ex_0_img_0", ...}, and
                                          images.zip unpacked

Caption i fits picture i. The kind is `collapsed_tag`: Object, Relation or Both.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from dsd_jax.data.annotation_files import not_empty, parse_rows
from dsd_jax.data.dataset import Row, to_examples
from dsd_jax.data.datasets.compositional import open_layout
from dsd_jax.data.datasets.compositional_layouts import WINOGROUND, Captions
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.required_files import existing_folder
from dsd_jax.errors import UserError
from dsd_jax.io.images import read_content

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
    name = f"{column} of row {row} of {table.path}"
    return read_content(table.picture(row, column), size, fit, name)


class Table:
    """A parquet file whose pictures are read one group of rows at a time.

    The last group stays in memory, for neighbours are usually asked for next.
    """

    def __init__(self, path: Path):
        import pyarrow.parquet  # takes a while to import

        self.path = path
        if not path.is_file():
            raise UserError(f"{path} is no regular file; expected a parquet file.")
        with self._explained():
            self._file = pyarrow.parquet.ParquetFile(path)
        lacking = [name for name in (*TEXTS, *IMAGES) if name not in self._file.schema_arrow.names]
        if lacking:
            raise UserError(f"{path} has no column {', '.join(lacking)}; is it Winoground's?")
        groups = self._file.metadata.num_row_groups
        counts = [self._file.metadata.row_group(i).num_rows for i in range(groups)]
        self._starts = np.cumsum([0, *counts])
        self._last: tuple[int, pyarrow.Table] | None = None
        self._lock = threading.Lock()  # several threads read pictures

    def rows(self, number: int) -> list[Row]:
        """Return the items, whose pictures' keys start with `number`.

        Raises:
            UserError: the file is damaged, or a value is of another kind.
        """
        with self._explained():
            columns = self._file.read(columns=list(TEXTS)).to_pylist()
        parsed = parse_rows(Captions, enumerate(columns), self.path, "row")
        return [
            item.to_row("")._replace(pictures=tuple((number, place, name) for name in IMAGES))
            for place, item in enumerate(parsed)
        ]

    def picture(self, row: int, column: str) -> bytes:
        """A picture's file, as the table holds it: bytes, or a struct with them.

        Raises:
            UserError: it holds none.
        """
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            if self._last is None or self._last[0] != group:
                with self._explained():
                    self._last = group, self._file.read_row_group(group, columns=list(IMAGES))
            value = self._last[1].column(column)[row - int(self._starts[group])].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise UserError(f"{column} of row {row} of {self.path} holds no picture.")
        return content

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what pyarrow raises of damaged files into one sentence."""
        import pyarrow

        try:
            yield
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.path} is no parquet file, or damaged ({reason}); get it again."
            ) from error
