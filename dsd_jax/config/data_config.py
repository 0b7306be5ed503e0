"""Which benchmark is read and how: the fields of `config.data`, by its `name`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_serializer

from dsd_jax.config.field_types import Part, PathText, Seed, SomePath
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked, List, mistake

Candidates = Annotated[int, Field(ge=2, le=10_000)]


class DataConfig(Checked):
    """Fields of every benchmark."""

    name: str = Field(description="of the benchmark")

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, serialize: Any) -> dict[str, Any]:
        """Leave out what nobody set, by which runs and prepared copies of old are known again."""
        fields = serialize(self)
        return {field: fields[field] for field in fields if field in self.model_fields_set}


class EmojiData(DataConfig):
    """The bundled benchmark."""

    name: Literal["emoji"] = Field(
        "emoji", description="the bundled benchmark, drawn once into ~/.cache/dsd_jax"
    )
    prepared: PathText = Field(
        "", description='folder for pictures that were resized once; "" for none'
    )
    prepared_size: int = Field(
        512, ge=8, le=9_000, description="their side in pixels: that of the model's pictures"
    )


class FolderData(DataConfig):
    """Fields of every benchmark but the bundled one, which is in no folder."""

    folder: PathText = Field(
        "", description="what holds its files, as its reader in dsd_jax/data describes them"
    )
    made: bool = Field(
        False, description="instead a small made data set with the same layout, of emoji scenes"
    )
    fit: Literal["stretch", "crop"] = Field(
        "stretch", description='to a square, as the authors do; "crop" keeps the aspect'
    )
    damaged: Literal["stop", "skip"] = Field(
        "stop", description='at a picture that can\'t be read; "skip": leave its items out, counted'
    )
    prepared: PathText = Field(
        "", description='folder for pictures that were read and resized once; "" for none'
    )
    prepared_size: int = Field(
        512, ge=8, le=9_000, description="their side in pixels: that of the model's pictures"
    )
    split_rule: Literal["official", "apart", "authors"] = Field(
        "official", description='"apart": cut by seed; "authors": the first rows are the shots'
    )
    shots_part: Part = Field(
        0.05, description="of a split that is cut: how many items, or which part of them"
    )
    validation_part: Part = Field(0.05, description="the same, for choosing settings")
    split_seed: Seed = Field(0, description="that it is cut by")


class ComvgData(FolderData):
    """Fields of ComVG."""

    name: Literal["comvg"] = Field("comvg", description="of the benchmark")
    pictures: PathText = Field("", description="what holds VG_100K*, if it is another folder")
    csv: SomePath = Field("compositional_visual_genome.csv", description="the items")
    shots_csv: PathText = Field(
        "", description='more items, such as the authors\' comvg_train.csv: split "train"'
    )


class RefCocoData(FolderData):
    """Fields of RefCOCOg."""

    name: Literal["refcocog"] = Field("refcocog", description="of the benchmark")
    split_by: Literal["umd", "google"] = Field(
        "umd", description='or "google", whose splits share pictures'
    )
    pictures: PathText = Field("", description="what holds train2014, if it is another folder")
    candidates: Candidates = Field(10, description="sentences per picture, the right one included")
    seed: Seed = Field(0, description="what the wrong ones are drawn by")


class VQAData(FolderData):
    """Fields of VQAv2."""

    name: Literal["vqa"] = Field("vqa", description="of the benchmark")
    form: Literal["official", "authors"] = Field(
        "official", description='or "authors": vqa_text_*.csv and test.txt, other splits'
    )
    pictures: PathText = Field(
        "", description="what holds train2014 and val2014, if it is another folder"
    )
    candidates: Candidates = Field(10, description="pictures or answers, the right one included")
    seed: Seed = Field(0, description="what the wrong ones are drawn by")


class WinogroundData(FolderData):
    """Fields of Winoground."""

    name: Literal["winoground"] = Field("winoground", description="of the benchmark")


class CompositionalData(FolderData):
    """Fields of SugarCrepe, COLA, ARO and What'sUp."""

    name: Literal["compositional"] = Field("compositional", description="of the benchmark")
    layout: Literal["sugarcrepe", "cola", "aro", "whatsup"] = Field(
        "sugarcrepe", description="how the set's files are laid out"
    )
    pictures: PathText = Field(
        "", description="what holds the pictures' folders, if it is another one"
    )


class ClassifyData(FolderData):
    """Fields of zero-shot classification."""

    name: Literal["classify"] = Field("classify", description="of the benchmark")
    templates: List[str] = Field(
        ("a photo of a {}.",),
        min_length=1,
        max_length=1000,
        description="captions; items take turns with several",
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
    """Fields of the user's own pictures and captions."""

    name: Literal["own"] = Field("own", description="of the benchmark")
    wrong: Literal["given", "captions", "pictures"] = Field(
        "given", description='in the file; or "captions" or "pictures", drawn from other rows'
    )
    candidates: Candidates = Field(
        10, description="captions or pictures of an item, where they are drawn"
    )
    seed: Seed = Field(0, description="what they are drawn by")


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
