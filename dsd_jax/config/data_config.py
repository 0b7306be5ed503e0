"""The benchmark that is read: the fields of `config.data`, by its `name`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_serializer

from dsd_jax.config.field_types import Part, PathText, Seed, SomePath
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked, List, mistake

Candidates = Annotated[int, Field(ge=2, le=10_000)]


class DataConfig(Checked):
    """Fields that every benchmark has."""

    name: str = Field(description="name of the benchmark")
    prepared: PathText = Field(
        "", description='folder for images that were read and resized once; "" for none'
    )
    prepared_size: int = Field(
        512, ge=8, le=9_000, description="side of these images in pixels, which is the model's"
    )

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, serialize: Any) -> dict[str, Any]:
        """Leave out fields that were not set: configs of older runs and copies do not have them."""
        fields = serialize(self)
        return {field: fields[field] for field in fields if field in self.model_fields_set}


class EmojiData(DataConfig):
    """The bundled benchmark."""

    name: Literal["emoji"] = Field(
        "emoji", description="the bundled benchmark, drawn once into ~/.cache/dsd_jax"
    )


class FolderData(DataConfig):
    """The fields of every benchmark that is read from a folder: all but the bundled one."""

    folder: PathText = Field(
        "", description="folder of its files, as its reader in dsd_jax/data/datasets describes them"
    )
    made: bool = Field(
        False, description="use a small generated data set of the same layout instead"
    )
    fit: Literal["stretch", "crop"] = Field(
        "stretch", description='"stretch" images to a square, as the authors do, or "crop"'
    )
    damaged: Literal["stop", "skip"] = Field(
        "stop", description='at an unreadable image "stop", or "skip" its items and count them'
    )
    split_rule: Literal["official", "apart", "authors"] = Field(
        "official",
        description='"official", "apart" (cut by seed) or "authors" (first rows are shots)',
    )
    shots_part: Part = Field(
        0.05, description="shots of a split that is cut: a number of items, or a part of them"
    )
    validation_part: Part = Field(0.05, description="validation items of it, likewise")
    split_seed: Seed = Field(0, description="seed by which it is cut")


class ComvgData(FolderData):
    """The fields of ComVG."""

    name: Literal["comvg"] = Field("comvg", description="name of the benchmark")
    pictures: PathText = Field("", description="folder of VG_100K*, if it is another")
    csv: SomePath = Field("compositional_visual_genome.csv", description="file of the items")
    shots_csv: PathText = Field(
        "", description='file of the split "train", such as the authors\' comvg_train.csv'
    )


class RefCocoData(FolderData):
    """The fields of RefCOCOg."""

    name: Literal["refcocog"] = Field("refcocog", description="name of the benchmark")
    split_by: Literal["umd", "google"] = Field(
        "umd", description='"umd", or "google", whose splits share images'
    )
    pictures: PathText = Field("", description="folder of train2014, if it is another")
    candidates: Candidates = Field(10, description="captions per image, the right one included")
    seed: Seed = Field(0, description="seed by which wrong candidates are drawn")


class VQAData(FolderData):
    """The fields of VQAv2."""

    name: Literal["vqa"] = Field("vqa", description="name of the benchmark")
    form: Literal["official", "authors"] = Field(
        "official",
        description='"official", or "authors": vqa_text_*.csv, test.txt, other splits',
    )
    pictures: PathText = Field("", description="folder of train2014 and val2014, if it is another")
    candidates: Candidates = Field(10, description="images or answers, the right one included")
    seed: Seed = Field(0, description="seed by which wrong candidates are drawn")


class WinogroundData(FolderData):
    """The fields of Winoground."""

    name: Literal["winoground"] = Field("winoground", description="name of the benchmark")


class CompositionalData(FolderData):
    """The fields of SugarCrepe, COLA, ARO and What'sUp."""

    name: Literal["compositional"] = Field("compositional", description="name of the benchmark")
    layout: Literal["sugarcrepe", "cola", "aro", "whatsup"] = Field(
        "sugarcrepe", description="layout of the set's files"
    )
    pictures: PathText = Field("", description="folder of the images' folders, if it is another")


class ClassifyData(FolderData):
    """The fields of zero-shot classification."""

    name: Literal["classify"] = Field("classify", description="name of the benchmark")
    templates: List[str] = Field(
        ("a photo of a {}.",),
        min_length=1,
        max_length=1000,
        description="captions with {} for the class; items take turns with several",
    )

    @field_validator("templates")
    @classmethod
    def _check_templates(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            bare = template.replace("{}", "", 1)
            if template.count("{}") != 1 or "{" in bare or "}" in bare:
                raise ValueError(f"has {shorten(template)}, expected texts with one {{}} each")
        return templates


class OwnData(FolderData):
    """The fields of the user's own images and captions."""

    name: Literal["own"] = Field("own", description="name of the benchmark")
    wrong: Literal["given", "captions", "pictures"] = Field(
        "given",
        description='"given" in the file; "captions" or "pictures" drawn from other rows',
    )
    candidates: Candidates = Field(
        10, description="captions or images per item, where they are drawn"
    )
    seed: Seed = Field(0, description="seed by which they are drawn")


DATA: dict[str, type[DataConfig]] = {
    kind.model_fields["name"].default: kind
    for kind in (
        *(EmojiData, ComvgData, RefCocoData, VQAData, WinogroundData),
        *(CompositionalData, ClassifyData, OwnData),
    )
}


def _check_name(values: Any) -> Any:
    """Return `values`, or raise where they are no fields, or name no benchmark."""
    if isinstance(values, DataConfig):
        return values
    if not isinstance(values, Mapping):
        raise ValueError(f"is {shorten(values)}, expected an object with named fields")
    name = values.get("name")
    if not isinstance(name, str) or name not in DATA:
        raise mistake("name", f"is {shorten(name)}, expected one of {', '.join(DATA)}")
    return values


def _tag(values: Any) -> str:
    """Return the tag of a member of `AnyData`, in parentheses, which messages leave out."""
    return f"({values.name if isinstance(values, DataConfig) else values['name']})"


AnyData = Annotated[
    Annotated[EmojiData, Tag("(emoji)")]
    | Annotated[ComvgData, Tag("(comvg)")]
    | Annotated[RefCocoData, Tag("(refcocog)")]
    | Annotated[VQAData, Tag("(vqa)")]
    | Annotated[WinogroundData, Tag("(winoground)")]
    | Annotated[CompositionalData, Tag("(compositional)")]
    | Annotated[ClassifyData, Tag("(classify)")]
    | Annotated[OwnData, Tag("(own)")],
    Discriminator(_tag),
    BeforeValidator(_check_name),
]
