"""What prompts say of themselves in `prompts.json`: model, methods, timesteps, layers, shots.

    {"weights": "tiny", "weights_digest": "<64 hex digits>",
     "dtype": "float32", "recipe": {"methods": ["attention"], "kinds": ["lora"], "rank": 4, ...},
     "layers": [...], "timesteps": [89, 339, 589, 839], "noises": 2,
     "data": {...}, "shots_from": "shots", "shots": 256, "seed": 0, "kept_step": 60}   by train
    {"from": "lora.safetensors", "weights": "tiny"}                                    by convert

Every field may be absent: None, or empty for `layers`, then says that the prompts don't tell.
Fields that are not listed are kept, and `stated()` returns them too.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from dsd_jax.io.validation import Checked, List

_Timestep = Annotated[int, Field(ge=0, le=999)]


class _Open(Checked):
    """An object that keeps the fields it doesn't know."""

    model_config = ConfigDict(extra="allow")

    def stated(self) -> dict[str, Any]:
        """Return the JSON object it was parsed from."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class LearnedRecipe(_Open):
    """The recipe that prompts were learned by; fields as in a config's `learn`.

    Attributes:
        methods: whose losses were added up, and which the prompts serve.
        kinds: of what prompts can hold: "lora", "tokens", "weights".
    """

    methods: List[str] = Field(min_length=1)
    kinds: List[str] = ()


class AboutPrompts(_Open):
    """What is known of the prompts in a folder.

    Attributes:
        weights: name of the model, as `dsd_jax.load` takes it.
        weights_digest: `weights.weights_digest` of that model's params.
        dtype: of the params that were digested, in which they were learned.
        recipe: how they were learned.
        layers: paths whose attention scores counted.
        timesteps: at which the shots were scored, ascending.
        noises: under how many draws of noise.
        data: fields of the config's `data`.
        shots_from: split that the shots were drawn from.
        shots: number of items that were learned from.
        seed: of the draw of shots and of the initialization.
        kept_step: step whose prompts were kept; 0 where the held-out shots refused all steps.
        converted_from: file or folder that `convert` made them of.
    """

    weights: str | None = None
    weights_digest: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    recipe: LearnedRecipe | None = None
    layers: List[str] = ()
    timesteps: List[_Timestep] | None = None
    noises: int | None = Field(None, ge=1)
    data: Mapping[str, Any] | None = None
    shots_from: str | None = None
    shots: int | None = Field(None, ge=0)
    seed: int | None = Field(None, ge=0)
    kept_step: int | None = Field(None, ge=0)
    converted_from: str | None = Field(None, alias="from")

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that the prompts were learned for; empty where they don't tell."""
        return self.recipe.methods if self.recipe else ()
