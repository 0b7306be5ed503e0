"""Compositional sets: images and captions that differ by little, 2x2, 1x2, 1x4 or 2x1.

One reader serves all of them. To add a set, write the class of an entry of its file and give
`LAYOUTS` one more `Layout`. Annotation files lie in the set's folder or its `data/`. Images are
looked for in the folders that a layout names, below the set's folder or the one given as
`pictures`.

- SugarCrepe (MIT, https://github.com/RAIVNLab/sugar-crepe): seven files, one for each kind, from
  number to {"filename", "caption", "negative_caption"}; images are COCO val2017. 1 x 2.
- COLA, multi-objects (https://github.com/arijitray1993/COLA): a list of [link, caption, link,
  caption]; the links' last part is a Visual Genome image's name. Caption i fits image i. 2 x 2.
- ARO (MIT, https://github.com/mertyg/vision-language-models-are-bows): Visual Genome Relation and
  Attribution, lists of {"image_path", "true_caption", "false_caption", "bbox_x", "bbox_y",
  "bbox_w", "bbox_h", ...}; only what is in the box is shown. 1 x 2. The paper averages over
  relations (attribute pairs); here all items count the same.
- WhatsUp (MIT, https://github.com/amitakamath/whatsup_vlms): controlled_images, controlled_clevr,
  lists of {"image_path", "caption_options"}, the right caption first. 1 x 4. Paths start with
  "data/", as seen from that repository; four images share their captions and are one cluster.
- Winoground, as it came until 2024: see `winoground.py`. 2 x 2.
"""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from dsd_jax.data.annotation_files import (
    FileRow,
    ImagePath,
    Name,
    Pixels,
    Text,
    check_different,
    not_empty,
    parse_rows,
    read_json,
    read_json_lines,
)
from dsd_jax.data.data_folder import DataFolder, RequiredFile
from dsd_jax.data.examples import Benchmark, Example, Examples
from dsd_jax.errors import UserError
from dsd_jax.io.validation import List


class Entry(FileRow):
    """An entry of a set's file."""

    @abstractmethod
    def to_example(self, kind: str) -> Example:
        """Return the entry's item, its images by name; `kind` is that of the file."""


class SugarCrepe(Entry):
    """An image, its caption and a wrong one."""

    filename: ImagePath
    caption: Text
    negative_caption: Text

    @model_validator(mode="after")
    def _check(self) -> "SugarCrepe":
        check_different(self.caption, self.negative_caption)
        return self

    def to_example(self, kind: str) -> Example:
        """Return the entry's item."""
        captions = (self.caption, self.negative_caption)
        return Example(captions, (self.filename,), kind, self.filename)


class Cola(Entry):
    """An item of two images, named by links that end in the files' names, and their captions."""

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

    def to_example(self, kind: str) -> Example:
        """Return the entry's item."""
        return Example(self.captions, self.images, kind, self.images[0])


class Aro(Entry):
    """A part of an image, its caption and a wrong one.

    Some of the real entries name the same thing twice, so that their two captions are the same.
    """

    image_path: ImagePath
    true_caption: Text
    false_caption: Text
    bbox_x: Pixels
    bbox_y: Pixels
    bbox_w: Pixels
    bbox_h: Pixels

    def to_example(self, kind: str) -> Example:
        """Return the entry's item."""
        x, y, width, height = map(int, (self.bbox_x, self.bbox_y, self.bbox_w, self.bbox_h))
        captions = (self.true_caption, self.false_caption)
        return Example(captions, ((self.image_path, x, y, width, height),), kind, self.image_path)


class WhatsUp(Entry):
    """An image and its caption among four."""

    image_path: ImagePath
    caption_options: Annotated[List[Text], Field(min_length=4, max_length=4)]

    @model_validator(mode="after")
    def _check(self) -> "WhatsUp":
        for wrong in self.caption_options[1:]:
            check_different(self.caption_options[0], wrong)
        return self

    def to_example(self, kind: str) -> Example:
        """Return the entry's item."""
        cluster = " / ".join(sorted(self.caption_options))
        return Example(self.caption_options, (self.image_path,), kind, cluster)


def _to_label(value: Any) -> Any:
    return str(value) if type(value) is int else value


class WinogroundCaptions(Entry):
    """The fields of a Winoground item besides its images, in either of its forms."""

    id: Annotated[Text, BeforeValidator(_to_label)]
    caption_0: Text
    caption_1: Text
    collapsed_tag: Name

    @model_validator(mode="after")
    def _check(self) -> "WinogroundCaptions":
        check_different(self.caption_0, self.caption_1)
        return self

    def to_example(self, kind: str) -> Example:
        """Return the entry's item without its images."""
        return Example((self.caption_0, self.caption_1), (), self.collapsed_tag, self.id)


class Winoground(WinogroundCaptions):
    """An item of two images, named without the files' ending, and their captions."""

    image_0: ImagePath
    image_1: ImagePath

    def to_example(self, kind: str) -> Example:
        """Return the entry's item."""
        names = (self.image_0, self.image_1)
        images = tuple(name if name.endswith(".png") else f"{name}.png" for name in names)
        return super().to_example(kind)._replace(images=images)


class Layout(NamedTuple):
    """A set's files.

    files: {kind: name of its annotation file}.
    source: where people get these.
    entry: what an entry of these files holds.
    image_folders: where the images are.
    """

    files: dict[str, str]
    source: str
    entry: type[Entry]
    image_folders: RequiredFile


VG = "https://homes.cs.washington.edu/~ranjay/visualgenome"
SUGARCREPE_KINDS = (
    "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att",
)  # fmt: skip
LAYOUTS = {
    "sugarcrepe": Layout(
        {kind: f"{kind}.json" for kind in SUGARCREPE_KINDS},
        "https://github.com/RAIVNLab/sugar-crepe (data/)",
        SugarCrepe,
        RequiredFile(
            ("val2017", "images/val2017", "images", ""),
            "http://images.cocodataset.org/zips/val2017.zip",
        ),
    ),
    "cola": Layout(
        {"all": "COLA_multiobjects_matching_benchmark.json"},
        "https://github.com/arijitray1993/COLA (data/)",
        Cola,
        RequiredFile(("images", "VG_100K", "VG_100K_2", ""), f"the links in that file, or {VG}"),
    ),
    "aro": Layout(
        {
            "relation": "visual_genome_relation.json",
            "attribution": "visual_genome_attribution.json",
        },
        "https://github.com/mertyg/vision-language-models-are-bows",
        Aro,
        RequiredFile(
            ("images", "VG_100K", "VG_100K_2", ""),
            "https://github.com/mertyg/vision-language-models-are-bows (vgr_vga_images.zip)",
        ),
    ),
    "whatsup": Layout(
        {
            "controlled_images": "controlled_images_dataset.json",
            "controlled_clevr": "controlled_clevr_dataset.json",
        },
        "https://github.com/amitakamath/whatsup_vlms",
        WhatsUp,
        RequiredFile(
            ("", ".."),
            "https://github.com/amitakamath/whatsup_vlms (the two .tar.gz of its README)",
        ),
    ),
}
WINOGROUND = Layout(
    {"all": "examples.jsonl"},
    "https://huggingface.co/datasets/facebook/winoground",
    Winoground,
    RequiredFile(
        ("images", "data/images", "data", ""),
        "https://huggingface.co/datasets/facebook/winoground (data/images.zip)",
    ),
)


def benchmark(
    folder: str, layout: str = "sugarcrepe", *, pictures: str = "", fit: str = "stretch"
) -> Benchmark:
    """Open splits "all" and, if the set has several files, one for each.

    Args:
        folder: what holds the set's files.
        layout: a key of `LAYOUTS`.
        pictures: what holds the images' folders, if it is another one.
        fit: how images become square; see `images.FITS`.

    Raises:
        UserError: the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout is '{layout}'; expected {', '.join(LAYOUTS)}.")
    return open_layout(layout, LAYOUTS[layout], folder, pictures=pictures, fit=fit)


def open_layout(
    name: str, layout: Layout, folder: str, *, pictures: str = "", fit: str = "stretch"
) -> Benchmark:
    """Return the benchmark of files in this layout."""
    splits = ("all", *layout.files) if len(layout.files) > 1 else ("all",)

    def load(split: str) -> Examples:
        place = DataFolder.open(folder, layout.image_folders, pictures=pictures, fit=fit)
        return load_split(place, layout, split)

    return Benchmark(name, splits, load)


def load_split(folder: DataFolder, layout: Layout, split: str) -> Examples:
    """Return the items of a split; missing images are noticed at once, none is read yet."""
    kinds = tuple(layout.files) if split == "all" else (split,)
    names = [layout.files[kind] for kind in kinds]
    paths = folder.find([RequiredFile((f"data/{name}", name), layout.source) for name in names])
    return folder.examples(
        entry.to_example(kind)
        for kind, path in zip(kinds, paths, strict=True)
        for entry in parse_rows(layout.entry, read_entries(path), path)
    )


def read_entries(path: Path) -> Iterable[tuple[Any, Any]]:
    """Return numbers and values of a list, an object or the lines of a file."""
    if path.suffix == ".jsonl":
        return read_json_lines(path)
    content = read_json(path)
    if not isinstance(content, dict | list):
        raise UserError(f"{path} holds no list of items; is it the right file?")
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    return not_empty(path, list(pairs))
