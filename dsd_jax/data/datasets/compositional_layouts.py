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

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from dsd_jax.data.annotation_fields import FileRow, ImagePath, Name, Pixels, Text, check_different
from dsd_jax.data.annotation_files import not_empty, parse_rows, read_json, read_json_lines
from dsd_jax.data.dataset import Row
from dsd_jax.errors import UserError
from dsd_jax.io.validation import List

Key: TypeAlias = str | tuple[str, int, int, int, int]  # an image, or (image, x, y, w, h)


class Item(FileRow):
    """An entry of a set's file."""

    @abstractmethod
    def to_row(self, kind: str) -> Row:
        """Return the entry's item; `kind` is that of the file."""


class Layout(NamedTuple):
    """A set's files.

    files: {kind: name of its annotation file}.
    source: where people get these.
    item: what an entry of these files holds.
    folders: where the pictures are, the usual place first.
    pictures_source: where people get these.
    """

    files: dict[str, str]
    source: str
    item: type[Item]
    folders: tuple[str, ...]
    pictures_source: str


def read_rows(layout: Layout, path: Path, kind: str) -> Iterator[Row]:
    """Yield the items of a file.

    Raises:
        UserError: an entry is not as the layout says.
    """
    for item in parse_rows(layout.item, entries(path), path):
        yield item.to_row(kind)


def entries(path: Path) -> Iterable[tuple[Any, Any]]:
    """Return numbers and values of a list, an object or the lines of a file."""
    if path.suffix == ".jsonl":
        return read_json_lines(path)
    content = read_json(path)
    if not isinstance(content, dict | list):
        raise UserError(f"{path} holds no list of items; is it the right file?")
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    return not_empty(path, list(pairs))


class SugarCrepe(Item):
    """An image, its caption and a wrong one."""

    filename: ImagePath
    caption: Text
    negative_caption: Text

    @model_validator(mode="after")
    def _check(self) -> "SugarCrepe":
        check_different(self.caption, self.negative_caption)
        return self

    def to_row(self, kind: str) -> Row:
        """Return the entry's item."""
        captions = (self.caption, self.negative_caption)
        return Row(captions, (self.filename,), kind, self.filename)


class Cola(Item):
    """Two images, by links of which the last part is the file's name, and their captions."""

    images: tuple[ImagePath, ImagePath]
    captions: tuple[Text, Text]

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, entry: Any) -> Any:
        if not isinstance(entry, list) or len(entry) != 4:
            raise ValueError("expected [link, caption, link, caption]")
        links = (link.rpartition("/")[2] if isinstance(link, str) else link for link in entry[::2])
        return {"images": tuple(links), "captions": tuple(entry[1::2])}

    @model_validator(mode="after")
    def _check(self) -> "Cola":
        check_different(*self.captions)
        check_different(*self.images, "images")
        return self

    def to_row(self, kind: str) -> Row:
        """Return the entry's item."""
        return Row(self.captions, self.images, kind, self.images[0])


class Aro(Item):
    """A part of an image, its caption and a wrong one.

    Of the real entries some have the same thing twice, and so two captions that are the same.
    """

    image_path: ImagePath
    true_caption: Text
    false_caption: Text
    bbox_x: Pixels
    bbox_y: Pixels
    bbox_w: Pixels
    bbox_h: Pixels

    def to_row(self, kind: str) -> Row:
        """Return the entry's item."""
        x, y, width, height = map(int, (self.bbox_x, self.bbox_y, self.bbox_w, self.bbox_h))
        captions = (self.true_caption, self.false_caption)
        return Row(captions, ((self.image_path, x, y, width, height),), kind, self.image_path)


class WhatsUp(Item):
    """An image and its caption among four."""

    image_path: ImagePath
    caption_options: Annotated[List[Text], Field(min_length=4, max_length=4)]

    @model_validator(mode="after")
    def _check(self) -> "WhatsUp":
        for wrong in self.caption_options[1:]:
            check_different(self.caption_options[0], wrong)
        return self

    def to_row(self, kind: str) -> Row:
        """Return the entry's item."""
        cluster = " / ".join(sorted(self.caption_options))
        return Row(self.caption_options, (self.image_path,), kind, cluster)


def _to_label(value: Any) -> Any:
    return str(value) if type(value) is int else value


class Captions(Item):
    """What Winoground says of an item besides its images, in either of its forms."""

    id: Annotated[Text, BeforeValidator(_to_label)]
    caption_0: Text
    caption_1: Text
    collapsed_tag: Name

    @model_validator(mode="after")
    def _check(self) -> "Captions":
        check_different(self.caption_0, self.caption_1)
        return self

    def to_row(self, kind: str) -> Row:
        """Return the entry's item without its images."""
        return Row((self.caption_0, self.caption_1), (), self.collapsed_tag, self.id)


class Winoground(Captions):
    """Two images and their captions; the files' names lack their ending."""

    image_0: ImagePath
    image_1: ImagePath

    def to_row(self, kind: str) -> Row:
        """Return the entry's item."""
        names = (self.image_0, self.image_1)
        images = tuple(name if name.endswith(".png") else f"{name}.png" for name in names)
        return super().to_row(kind)._replace(pictures=images)


VG = "https://homes.cs.washington.edu/~ranjay/visualgenome"
COCO = "http://images.cocodataset.org/zips/val2017.zip"
SUGARCREPE_KINDS = (
    "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att",
)  # fmt: skip

SUGARCREPE = Layout(
    {kind: f"{kind}.json" for kind in SUGARCREPE_KINDS},
    "https://github.com/RAIVNLab/sugar-crepe (data/)",
    SugarCrepe,
    ("val2017", "images/val2017", "images", ""),
    COCO,
)
COLA = Layout(
    {"all": "COLA_multiobjects_matching_benchmark.json"},
    "https://github.com/arijitray1993/COLA (data/)",
    Cola,
    ("images", "VG_100K", "VG_100K_2", ""),
    f"the links in that file, or {VG}",
)
ARO = Layout(
    {
        "relation": "visual_genome_relation.json",
        "attribution": "visual_genome_attribution.json",
    },
    "https://github.com/mertyg/vision-language-models-are-bows",
    Aro,
    ("images", "VG_100K", "VG_100K_2", ""),
    "https://github.com/mertyg/vision-language-models-are-bows (vgr_vga_images.zip)",
)
WHATSUP = Layout(
    {
        "controlled_images": "controlled_images_dataset.json",
        "controlled_clevr": "controlled_clevr_dataset.json",
    },
    "https://github.com/amitakamath/whatsup_vlms",
    WhatsUp,
    ("", ".."),
    "https://github.com/amitakamath/whatsup_vlms (the two .tar.gz of its README)",
)
WINOGROUND = Layout(
    {"all": "examples.jsonl"},
    "https://huggingface.co/datasets/facebook/winoground",
    Winoground,
    ("images", "data/images", "data", ""),
    "https://huggingface.co/datasets/facebook/winoground (data/images.zip)",
)
