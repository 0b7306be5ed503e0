"""Compositional sets: pictures and captions that differ by little, 2x2, 1x2, 1x4 or 2x1.

One reader for all of them, which differ only in how their files are laid out. To add one, write a
function from a folder to `Row`s and an entry of `LAYOUTS`: some ten lines; see
`compositional_layouts.py`, which also says where each one comes from and under which licence.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from dsd_jax.data import compositional_layouts as layouts
from dsd_jax.data import winoground
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.pieces import existing_folder, find_pieces
from dsd_jax.data.pictures import locate, reader
from dsd_jax.data.rows import Row, to_examples
from dsd_jax.errors import UserError


class Layout(NamedTuple):
    """How a set's files are laid out.

    pieces: the annotation files, of which `rows` gets the paths.
    rows: from these to all items; pictures are named as in the annotations, or (name, x, y, w, h)
        for a part of one.
    folders: where the pictures are, relative to the set's folder, the usual place first.
    source: where people get the pictures.
    """

    pieces: tuple
    rows: Callable[..., list[Row]]
    folders: tuple[str, ...]
    source: str


LAYOUTS = {
    "winoground": Layout(*winoground.LAYOUT),
    "sugarcrepe": Layout(*layouts.SUGARCREPE),
    "cola": Layout(*layouts.COLA),
    "aro": Layout(*layouts.ARO),
    "whatsup": Layout(*layouts.WHATSUP),
}
