"""What `train`, `evaluate` and `plan` are asked for: the fields of a config, with their ranges."""

import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dsd_jax.config.data_config import AnyData
from dsd_jax.config.field_types import (
    CPUDevices,
    Different,
    Label,
    Name,
    PathText,
    ShotCount,
    Size,
    SomePath,
    Timesteps,
)
from dsd_jax.config.recipes import ClipRecipe, RecipeConfig
from dsd_jax.config.score_spec import parse_all
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked, List, mistake

# The noise of training is drawn by seeds of 32 bits, a thousand for each draw of shots.
_NOISES = 1000
_MOST_SEED = 2_000_000


class RunConfig(Checked):
    """A run of `train` or `evaluate`; the descriptions say what each field does."""

    weights: SomePath = Field(
        "tiny", description='"tiny", a folder, or "org/name[@revision]" on the Hub'
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description='of the weights and matrix products; "bfloat16" on accelerators'
    )
    fsdp: Size = Field(1, description="devices of a host that share one copy of the weights")
    cache: PathText = Field(
        "", description="folder for encoded pictures and captions, which later runs find there"
    )
    seed: int = Field(
        0,
        ge=0,
        le=_MOST_SEED,
        description="of the noise that is scored, and of the first draw of shots",
    )
    seeds: int = Field(
        3, ge=1, le=1000, description="draws of shots and initialisations per few-shot row"
    )
    cpu_devices: CPUDevices = Field(
        2, description="simulated CPU devices; ignored where there is an accelerator"
    )

    methods: Annotated[List[Name], Different] = Field(
        ("attention", "noise", "itm", "relative", "dsd"),
        min_length=1,
        description="rows of the table: NAME, or NAME@TIMESTEPS, or "
        "NAME@TIMESTEPS>CANDIDATES@TIMESTEPS, which drops candidates (config/score_spec.py)",
    )
    layers: Annotated[List[Name], Different] = Field(
        (), description="whose attention scores count: paths; () is the authors' choice"
    )
    timesteps: Timesteps = Field(
        4, description="noise levels per score, where a method does not name its own number"
    )
    splits: Annotated[List[Name], Different] = Field(
        ("test",), min_length=1, description="whose items are scored"
    )
    per_kind: Annotated[int, Field(ge=2)] | None = Field(
        None, description="items of each kind and split, the first ones; None is all"
    )

    shots_from: Name = Field("shots", description="split that few-shot items are drawn from")
    shots: List[ShotCount] = Field(
        (1.0,),
        min_length=1,
        max_length=100,
        description="how many: numbers of items, or fractions of them up to 1.0",
    )
    noises: int = Field(
        2, ge=1, le=_NOISES, description="under which the shots are seen in training"
    )
    recipes: Annotated[List[Name], Different] = Field(
        (), description="which of `learn` to learn by"
    )
    clip: PathText = Field(
        "", description='to compare with: "tiny-clip", a folder, an id on the Hub; "" for none'
    )
    data: AnyData = Field(description="the benchmark")
    learn: dict[Label, RecipeConfig] = Field({}, description="how prompts are learned, by name")
    tune: ClipRecipe = Field(
        ClipRecipe(), description="how the CLIP is fine-tuned, on the same shots as the recipes"
    )

    @model_validator(mode="after")
    def _check_recipes(self) -> "RunConfig":
        for label in self.recipes:
            if label not in self.learn:
                known = ", ".join(sorted(self.learn)) or "none, for `learn` is empty"
                raise mistake("recipes", f"names {shorten(label)}, expected some of {known}")
        return self

    @model_validator(mode="after")
    def _check_methods(self) -> "RunConfig":
        try:
            parse_all(self.methods, self.timesteps)
        except UserError as error:
            reason = str(error).removesuffix(".")
            raise mistake("methods", f"can't be read: {reason}") from error
        return self

    def to_json(self, indent: int | None = None) -> str:
        """Return all fields as JSON, as `config.json` in a workdir has them."""
        return to_json(self, indent)


def to_json(config: Checked, indent: int | None = None) -> str:
    """Return the fields of a config or a part of it as JSON."""
    return json.dumps(config.model_dump(mode="json"), indent=indent, sort_keys=True)
