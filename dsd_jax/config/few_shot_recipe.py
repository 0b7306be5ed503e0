"""How prompts are learned from few shots: the fields of `config.learn.NAME`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dsd_jax.config.field_types import Count, Different, Fraction, Rate, Size, Timesteps, Weight
from dsd_jax.io.validation import Checked, List, mistake

Kind = Literal["lora", "tokens", "weights"]
Loss = Literal["cross_entropy", "hinge"]
Remat = Literal["nothing", "products", "blocks"]
MethodName = Literal["attention", "noise", "noise-l1", "noise-huber", "itm", "relative", "dsd"]
Ridge = Annotated[float, Field(gt=0, le=1e12)]


class RecipeConfig(Checked):
    """A recipe for learning prompts; the descriptions say what each field does."""

    kinds: Annotated[List[Kind], Different] = Field(
        ("lora",),
        min_length=1,
        description='of "lora", "tokens" and "weights"; weights are fitted first',
    )
    methods: Annotated[List[MethodName], Different] = Field(
        ("attention",),
        min_length=1,
        description="whose losses are added up, and which the prompts serve",
    )
    loss: Loss = Field("cross_entropy", description='or "hinge", as the authors have it')
    margin: Weight = Field(
        1.0, description="of the hinge, in the unit that suits zero-shot margins"
    )
    denoise: Weight = Field(0.0, description="weight of the matching picture's denoising loss")
    steps: Count = Field(60, description="of the optimizer, at most")
    batch: Size = Field(8, description="items per step")
    timesteps: Timesteps = Field(
        4, description="of those that are scored, drawn anew for each step"
    )
    learning_rate: Rate = Field(2e-3, description="of AdamW, at its highest")
    weight_decay: Rate = Field(1e-2, description="of AdamW")
    rank: Annotated[int, Field(ge=1, le=4096)] = Field(4, description="of the low-rank updates")
    tokens: Annotated[int, Field(ge=1, le=4096)] = Field(
        4, description='learned tokens per layer, for the kind "tokens"'
    )
    accumulate: Size = Field(1, description="parts that a batch is computed in, to fit into memory")
    remat: Remat = Field(
        "nothing", description='recomputed for gradients: all but "products", or "blocks"'
    )
    ridges: List[Ridge] = Field(
        (1.0, 3.0, 10.0, 30.0, 100.0),
        min_length=1,
        max_length=100,
        description='strengths of the prior tried for "weights"',
    )
    held_out: Fraction = Field(0.2, description="part of the shots that decides when to stop")
    check_every: Count = Field(20, description="steps between looks at it")
    patience: Count = Field(4, description="looks without improvement before stopping")

    @model_validator(mode="after")
    def _check_accumulate(self) -> "RecipeConfig":
        if self.accumulate > self.batch:
            raise mistake(
                "accumulate",
                f"is {self.accumulate}, expected at most the batch, which is {self.batch}",
            )
        return self

    def on_layers(self, layers: Sequence[str]) -> "Recipe":
        """Return the recipe on a model whose chosen layers are known."""
        return Recipe(layers=tuple(layers), **dict(self))


class Recipe(RecipeConfig):
    """A recipe on a model, of which the layers are known whose scores count."""

    layers: tuple[str, ...]
