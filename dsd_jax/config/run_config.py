"""The config of `train`, `evaluate` and `plan`: its fields with their ranges and descriptions."""

import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dsd_jax.config.data_config import AnyData
from dsd_jax.config.field_types import (
    PROFILE,
    TRACKER,
    CPUDevices,
    Different,
    Label,
    Name,
    PathText,
    ProfiledSteps,
    ShotCount,
    Size,
    SomePath,
    Timesteps,
    Tracker,
)
from dsd_jax.config.recipes import ClipRecipe, RecipeConfig
from dsd_jax.config.score_spec import parse_all
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked, List, mistake

# The noise of training is drawn by seeds of 32 bits, a thousand for each draw of shots.
_MAX_NOISES = 1000
_MAX_SEED = 2_000_000


class RunConfig(Checked):
    """A config of `train`, `evaluate` or `plan`."""

    weights: SomePath = Field(
        "tiny", description='"tiny", a folder, or "org/name[@revision]" on the Hub'
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description='type of params and matrix products; "bfloat16" on accelerators',
    )
    fsdp: Size = Field(1, description="devices of a host that share one copy of the params")
    cache: PathText = Field(
        "", description="folder for encoded images and captions, which later runs reuse"
    )
    seed: int = Field(
        0,
        ge=0,
        le=_MAX_SEED,
        description="seed of the noise at scoring, and of the first draw of shots",
    )
    seeds: int = Field(
        3, ge=1, le=1000, description="draws of shots and initializations per few-shot row"
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
        (), description="paths of layers whose attention scores count; () is the authors' choice"
    )
    timesteps: Timesteps = Field(
        4, description="timesteps per score, where a method does not name its own number"
    )
    splits: Annotated[List[Name], Different] = Field(
        ("test",), min_length=1, description="splits that are scored"
    )
    per_kind: Annotated[int, Field(ge=2)] | None = Field(
        None, description="number of items of each kind and split, the first ones; None is all"
    )

    shots_from: Name = Field("shots", description="split that few-shot items are drawn from")
    shots: List[ShotCount] = Field(
        (1.0,),
        min_length=1,
        max_length=100,
        description="numbers of shots: items, or fractions of them up to 1.0",
    )
    noises: int = Field(
        2, ge=1, le=_MAX_NOISES, description="noise samples per shot and timestep during training"
    )
    recipes: Annotated[List[Name], Different] = Field(
        (), description="names of the recipes in `learn` that are used"
    )
    clip: PathText = Field(
        "", description='baseline CLIP: "tiny-clip", a folder, an id on the Hub; "" for none'
    )
    tracker: Tracker = Field("", description=TRACKER)
    profile: ProfiledSteps = Field("", description=PROFILE)
    data: AnyData = Field(description="the benchmark")
    learn: dict[Label, RecipeConfig] = Field({}, description="recipes of prompts, by name")
    tune: ClipRecipe = Field(
        ClipRecipe.model_construct(),
        description="recipe of the CLIP, tuned on the same shots",
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
        return json.dumps(self.model_dump(mode="json"), indent=indent, sort_keys=True)
