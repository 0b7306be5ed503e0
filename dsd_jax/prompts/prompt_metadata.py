"""Metadata of prompts: the model, method, timesteps, layers and shots they were learned for.

`prompts.json` lies beside the tensors:

    {"weights": "tiny", "weights_digest": "<64 hex digits>",
     "dtype": "float32", "recipe": {"methods": ["attention"], "kinds": ["lora"], "rank": 4, ...},
     "layers": [...], "timesteps": [89, 339, 589, 839], "noises": 2,
     "data": {...}, "shots_from": "shots", "shots": 256, "seed": 0, "kept_step": 60,
     "checks": {"0": 0.51, "20": 0.48, ...}, "verdicts": [{"what": "LoRA", ...}]}      by train
    {"from": "lora.safetensors", "weights": "tiny"}                                    by convert

Every field may be absent: None, or empty for `layers`, then means that it is unknown. Unknown
fields are kept, and `stated()` returns them too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import ConfigDict, Field

from dsd_jax.io.validation import Checked, List
from dsd_jax.training.held_out_verdict import HeldOutVerdict

_Timestep = Annotated[int, Field(ge=0, le=999)]


class _Open(Checked):
    """An object that keeps unknown fields."""

    model_config = ConfigDict(extra="allow")

    def stated(self) -> dict[str, Any]:
        """Return the JSON object it was parsed from."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class LearnedRecipe(_Open):
    """The recipe that prompts were learned by; fields as in a config's `learn`.

    Attributes:
        methods: methods that the prompts were learned for.
        kinds: of the parameters: "lora", "tokens", "weights".
    """

    methods: List[str] = Field(min_length=1)
    kinds: List[str] = ()


class PromptMetadata(_Open):
    """The metadata of the prompts in a folder.

    Attributes:
        weights: name of the model, as `dsd_jax.load` takes it.
        weights_digest: `weights.weights_digest` of that model's params.
        dtype: of the model's params when the prompts were learned.
        recipe: how they were learned.
        layers: paths whose attention scores counted.
        timesteps: at which the shots were scored, ascending.
        noises: number of noise samples per shot and timestep.
        data: fields of the config's `data`.
        shots_from: split that the shots were drawn from.
        shots: number of items that were learned from.
        seed: of the draw of shots and of the initialization.
        kept_step: step whose prompts were kept; 0 if none was better on the held-out shots.
        checks: mean loss of the held-out shots by step.
        verdicts: of the held-out shots on each part that was learned.
        refused: why nothing was learned, a sentence; None if something was.
        recipe_name: that the recipe has in a config.
        converted_from: file or folder that `convert` read.
    """

    weights: str | None = None
    weights_digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    recipe: LearnedRecipe | None = None
    layers: List[str] = ()
    timesteps: List[_Timestep] | None = None
    noises: int | None = Field(default=None, ge=1)
    data: Mapping[str, Any] | None = None
    shots_from: str | None = None
    shots: int | None = Field(default=None, ge=0)
    seed: int | None = Field(default=None, ge=0)
    kept_step: int | None = Field(default=None, ge=0)
    checks: Mapping[Annotated[str, Field(pattern="^[0-9]+$")], float] | None = None
    verdicts: List[HeldOutVerdict] = ()
    refused: str | None = None
    recipe_name: str | None = None
    converted_from: str | None = Field(default=None, alias="from")

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that the prompts were learned for; empty if unknown."""
        return self.recipe.methods if self.recipe else ()


@runtime_checkable
class Learned(Protocol):
    """An object with prompts and their metadata, as `learned_prompts.Prompts` is."""

    @property
    def params(self) -> Mapping[str, Any]:
        """A prompts pytree."""
        ...

    @property
    def metadata(self) -> PromptMetadata:
        """The model, method and timesteps that they were learned for."""
        ...


# How prompts are given: learned ones, a pytree, their folder, or None for the frozen model.
GivenPrompts: TypeAlias = Learned | Mapping[str, Any] | str | Path | None
