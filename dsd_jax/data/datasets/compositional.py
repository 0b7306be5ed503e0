"""Compositional sets: pictures and captions that differ by little, 2x2, 1x2, 1x4 or 2x1.

One reader for all of them, which differ in how their files are laid out alone. To add a set, give
`LAYOUTS` one more entry and write the function that makes one entry of its file a `Row`, ten lines
in `layouts.py`, where it is also said where each set comes from and under which licence.
"""

from functools import partial

from dsd_jax.data.dataset import to_examples
from dsd_jax.data.datasets import compositional_layouts
from dsd_jax.data.datasets.compositional_layouts import Key, Layout
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.image_folder import locate, reader
from dsd_jax.data.required_files import Piece, existing_folder, find_pieces
from dsd_jax.errors import UserError

LAYOUTS = {
    "sugarcrepe": compositional_layouts.SUGARCREPE,
    "cola": compositional_layouts.COLA,
    "aro": compositional_layouts.ARO,
    "whatsup": compositional_layouts.WHATSUP,
}


def benchmark(
    folder: str, layout: str = "sugarcrepe", pictures: str = "", fit: str = "stretch"
) -> Benchmark:
    """Splits "all" and, if the set has several files, one for each.

    Args:
        folder: what holds the set's files.
        layout: a key of `LAYOUTS`.
        pictures: what holds the pictures' folders, if it is another one.
        fit: how pictures become square; see `images.FITS`.

    Raises:
        UserError: the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout is '{layout}'; expected {', '.join(LAYOUTS)}.")
    return open_layout(layout, LAYOUTS[layout], folder, pictures, fit)


def open_layout(name: str, layout: Layout, folder: str, pictures: str, fit: str) -> Benchmark:
    """A benchmark of files that are laid out so."""
    splits = ("all", *layout.files) if len(layout.files) > 1 else ("all",)
    return Benchmark(name, splits, partial(load, layout, folder, pictures, fit))


def load(layout: Layout, folder: str, pictures: str, fit: str, split: str) -> Examples:
    """The items of a split; which pictures are there is looked up at once, none is read."""
    root = existing_folder(folder)
    place = existing_folder(pictures, "pictures") if pictures else root
    kinds = tuple(layout.files) if split == "all" else (split,)
    names = [layout.files[kind] for kind in kinds]
    pieces = [Piece((f"data/{name}", name), layout.source) for name in names]
    paths = find_pieces(root, pieces, place, Piece(layout.folders, layout.pictures_source))
    rows = [
        row
        for kind, path in zip(kinds, paths, strict=True)
        for row in compositional_layouts.read_rows(layout, path, kind)
    ]
    files = (file_of(key) for row in rows for key in row.pictures)
    found = locate(place, layout.folders, files, layout.pictures_source)
    rows = [row._replace(pictures=tuple(moved(key, found) for key in row.pictures)) for row in rows]
    return to_examples(rows, reader(place, fit))


def file_of(key: Key) -> str:
    """The file that a picture or a part of it is in."""
    return key if isinstance(key, str) else key[0]


def moved(key: Key, found: dict[str, str]) -> Key:
    """A key with the path at which its file was found."""
    return found[key] if isinstance(key, str) else (found[key[0]], *key[1:])
