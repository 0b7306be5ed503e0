"""How the public compositional sets are laid out on disk; `compositional.py` reads them all.

Annotation files lie in the set's folder or its `data/`. Pictures are looked for in the folders that
are named here, below the set's folder or the one given as `pictures`.

- SugarCrepe (MIT, https://github.com/RAIVNLab/sugar-crepe): seven files, one for each kind, from
  number to {"filename", "caption", "negative_caption"}; pictures are COCO val2017. 1 x 2.
- COLA, multi-objects (https://github.com/arijitray1993/COLA): a list of [link, caption, link,
  caption]; the links' last part is a Visual Genome picture's name. Caption i fits picture i. 2 x 2.
- ARO (MIT, https://github.com/mertyg/vision-language-models-are-bows): Visual Genome Relation and
  Attribution, lists of {"image_path", "true_caption", "false_caption", "bbox_x", "bbox_y",
  "bbox_w", "bbox_h", ...}; only what is in the box is shown. 1 x 2. The paper averages over
  relations (attribute pairs); here all items count the same.
- WhatsUp (MIT, https://github.com/amitakamath/whatsup_vlms): controlled_images, controlled_clevr,
  lists of {"image_path", "caption_options"}, the right caption first. 1 x 4. Paths start with
  "data/", as seen from that repository; four pictures share their captions and are one cluster.
- Winoground, as it came until 2024: see `winoground.py`. 2 x 2.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from dsd_jax.data.rows import Row
from dsd_jax.data.tables import fields, not_empty, read_json, read_json_lines
from dsd_jax.errors import UserError

Key: TypeAlias = str | tuple[str, int, int, int, int]  # a picture, or (picture, x, y, w, h)


class Layout(NamedTuple):
    """A set's files.

    files: {kind: name of its annotation file}.
    source: where people get these.
    row: from (path, place in it, entry, kind) to the entry's item.
    folders: where the pictures are, the usual place first.
    pictures_source: where people get these.
    """

    files: dict[str, str]
    source: str
    row: Callable[[Path, str, Any, str], Row]
    folders: tuple[str, ...]
    pictures_source: str


def read_rows(layout: Layout, path: Path, kind: str) -> Iterator[Row]:
    """The items of a file.

    Raises:
        UserError: an entry is not as the layout says.
    """
    for place, entry in entries(path):
        row = layout.row(path, f"entry {place}", entry, kind)
        if not all(isinstance(text, str) for text in (*row.captions, *map(name_of, row.pictures))):
            raise UserError(f"{path}, entry {place}: captions and pictures must be texts.")
        yield row


def name_of(key: Key) -> Any:
    """The name of a picture, or of what it is a part of."""
    return key[0] if isinstance(key, tuple) else key


def entries(path: Path) -> Iterable[tuple[Any, Any]]:
    """Numbers and values of a list, an object or the lines of a file."""
    content = read_json_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(content, dict | list):
        raise UserError(f"{path} holds no list of items; is it the right file?")
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    return not_empty(path, list(pairs))


def sugarcrepe(path: Path, place: str, entry: Any, kind: str) -> Row:
    """A picture, its caption and a wrong one."""
    image, *captions = fields(path, place, entry, ("filename", "caption", "negative_caption"))
    return Row(tuple(captions), (image,), kind, image)


def cola(path: Path, place: str, entry: Any, kind: str) -> Row:
    """Two pictures, by links of which the last part is the file's name, and their captions."""
    if not isinstance(entry, list) or len(entry) != 4 or not all(isinstance(x, str) for x in entry):
        raise UserError(f"{path}, {place}: expected [link, caption, link, caption].")
    pictures = tuple(link.rpartition("/")[2] for link in entry[::2])
    return Row(tuple(entry[1::2]), pictures, kind, pictures[0])


def aro(path: Path, place: str, entry: Any, kind: str) -> Row:
    """A part of a picture, its caption and a wrong one."""
    names = ("image_path", "true_caption", "false_caption")
    image, *captions = fields(path, place, entry, names)
    box = fields(path, place, entry, ("bbox_x", "bbox_y", "bbox_w", "bbox_h"))
    return Row(tuple(captions), ((image, *map(int, box)),), kind, image)


def whatsup(path: Path, place: str, entry: Any, kind: str) -> Row:
    """A picture and its caption among four."""
    image, captions = fields(path, place, entry, ("image_path", "caption_options"))
    if not isinstance(captions, list) or len(captions) != 4:
        raise UserError(f"{path}, {place}: expected four caption_options.")
    return Row(tuple(captions), (image,), kind, " / ".join(sorted(map(str, captions))))


def winoground(path: Path, place: str, entry: Any, kind: str) -> Row:
    """Two pictures and their captions; the files' names lack their ending."""
    names = ("id", "image_0", "image_1", "caption_0", "caption_1", "collapsed_tag")
    number, *pair, first, second, tag = fields(path, place, entry, names)
    pictures = tuple(name if str(name).endswith(".png") else f"{name}.png" for name in pair)
    return Row((first, second), pictures, tag, number)


VG = "https://homes.cs.washington.edu/~ranjay/visualgenome"
COCO = "http://images.cocodataset.org/zips/val2017.zip"
SUGARCREPE_KINDS = (
    "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att",
)  # fmt: skip

SUGARCREPE = Layout(
    {kind: f"{kind}.json" for kind in SUGARCREPE_KINDS},
    "https://github.com/RAIVNLab/sugar-crepe (data/)",
    sugarcrepe,
    ("val2017", "images/val2017", "images", ""),
    COCO,
)
COLA = Layout(
    {"all": "COLA_multiobjects_matching_benchmark.json"},
    "https://github.com/arijitray1993/COLA (data/)",
    cola,
    ("images", "VG_100K", "VG_100K_2", ""),
    f"the links in that file, or {VG}",
)
ARO = Layout(
    {
        "relation": "visual_genome_relation.json",
        "attribution": "visual_genome_attribution.json",
    },
    "https://github.com/mertyg/vision-language-models-are-bows",
    aro,
    ("images", "VG_100K", "VG_100K_2", ""),
    "https://github.com/mertyg/vision-language-models-are-bows (vgr_vga_images.zip)",
)
WHATSUP = Layout(
    {
        "controlled_images": "controlled_images_dataset.json",
        "controlled_clevr": "controlled_clevr_dataset.json",
    },
    "https://github.com/amitakamath/whatsup_vlms",
    whatsup,
    ("", ".."),
    "https://github.com/amitakamath/whatsup_vlms (the two .tar.gz of its README)",
)
WINOGROUND = Layout(
    {"all": "examples.jsonl"},
    "https://huggingface.co/datasets/facebook/winoground",
    winoground,
    ("images", "data/images", "data", ""),
    "https://huggingface.co/datasets/facebook/winoground (data/images.zip)",
)
