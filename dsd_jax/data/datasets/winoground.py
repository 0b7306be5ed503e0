"""Winoground: two captions of the same words and two images, each of which fits one of them.

From https://huggingface.co/datasets/facebook/winoground, for research alone, after accepting its
conditions (images are Getty Images'). 400 items in either of two layouts:

    data/test-00000-of-00001-*.parquet    columns id, image_0, image_1 (the images' bytes),
                                          caption_0, caption_1, collapsed_tag, ...
    data/examples.jsonl, data/images/     as it came before: {"image_0": "ex_0_img_0", ...}, and
                                          images.zip unpacked

Caption i fits image i. The kind is `collapsed_tag`: Object, Relation or Both.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from dsd_jax.data.annotation_files import not_empty, parse_rows
from dsd_jax.data.data_folder import existing_folder
from dsd_jax.data.datasets.compositional import WINOGROUND, WinogroundCaptions, open_layout
from dsd_jax.data.examples import Benchmark, Example, Examples
from dsd_jax.errors import UserError
from dsd_jax.io.images import read_content

TEXTS = ("id", "caption_0", "caption_1", "collapsed_tag")
IMAGES = ("image_0", "image_1")


def benchmark(folder: str, fit: str = "stretch") -> Benchmark:
    """Open the one split, "all".

    Args:
        folder: what holds the parquet files (or its `data/` does), or examples.jsonl.
        fit: how images become square; see `images.FITS`.

    Raises:
        UserError: the folder isn't there.
    """
    root = existing_folder(folder)
    files = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if not files:
        return open_layout("winoground", WINOGROUND, folder, fit=fit)
    return Benchmark("winoground", ("all",), lambda split: load_parquet(files, fit))


def load_parquet(files: Sequence[Path], fit: str) -> Examples:
    """Return the items of parquet files; images stay in them until they are read."""
    tables = [ParquetTable(path) for path in files]
    items = [item for index, table in enumerate(tables) for item in table.items(index)]
    return Examples.from_items(not_empty(files[0], items), partial(read_cell, tables, fit))


def read_cell(
    tables: Sequence["ParquetTable"], fit: str, key: tuple[int, int, str], size: int
) -> np.ndarray:
    """Return the image of (index of the table, row, column), uint8 (size, size, 3)."""
    index, row, column = key
    table = tables[index]
    name = f"{column} of row {row} of {table.path}"
    return read_content(table.image_file(row, column), size, fit, name)


class ParquetTable:
    """A parquet file whose images are read one group of rows at a time.

    The last group stays in memory, for neighbors are usually asked for next.
    """

    def __init__(self, path: Path):
        import pyarrow.parquet  # takes a while to import

        self.path = path
        if not path.is_file():
            raise UserError(f"{path} is no regular file; expected a parquet file.")
        with self._explained():
            self._file = pyarrow.parquet.ParquetFile(path)
        missing = [name for name in (*TEXTS, *IMAGES) if name not in self._file.schema_arrow.names]
        if missing:
            raise UserError(f"{path} has no column {', '.join(missing)}; is it Winoground's?")
        groups = self._file.metadata.num_row_groups
        counts = [self._file.metadata.row_group(i).num_rows for i in range(groups)]
        self._starts = np.cumsum([0, *counts])
        self._last: tuple[int, pyarrow.Table] | None = None
        self._lock = threading.Lock()  # several threads read images

    def items(self, index: int) -> list[Example]:
        """Return the items, whose images' keys start with `index`.

        Raises:
            UserError: the file is damaged, or a value is of another kind.
        """
        with self._explained():
            columns = self._file.read(columns=list(TEXTS)).to_pylist()
        rows = parse_rows(WinogroundCaptions, enumerate(columns), self.path, "row")
        return [
            row.to_example("")._replace(images=tuple((index, place, name) for name in IMAGES))
            for place, row in enumerate(rows)
        ]

    def image_file(self, row: int, column: str) -> bytes:
        """Return an image's file from the table's cell, which holds its bytes or a struct of them.

        Raises:
            UserError: there is none.
        """
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            if self._last is None or self._last[0] != group:
                with self._explained():
                    self._last = group, self._file.read_row_group(group, columns=list(IMAGES))
            value = self._last[1].column(column)[row - int(self._starts[group])].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise UserError(f"{column} of row {row} of {self.path} holds no image.")
        return content

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn pyarrow's errors about damaged files into one sentence."""
        import pyarrow

        try:
            yield
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.path} is no parquet file, or damaged ({reason}); get it again."
            ) from error
