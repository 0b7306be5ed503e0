"""Recipes for few-shot learning: the fields of `config.learn.NAME` and of `config.tune`."""

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

# Parts of a CLIP's params that are trained. Not the logit scale: no decision depends on it.
KINDS = {
    "full": ("text_model", "vision_model", "text_projection", "visual_projection"),
    "projections": ("text_projection", "visual_projection"),
}


class RecipeConfig(Checked):
    """A recipe for learning prompts."""

    kinds: Annotated[List[Kind], Different] = Field(
        ("lora",),
        min_length=1,
        description='what is learned: "lora", "tokens" or "weights"; weights are fitted first',
    )
    methods: Annotated[List[MethodName], Different] = Field(
        ("attention",),
        min_length=1,
        description="methods whose losses are added up, and which the prompts serve",
    )
    loss: Loss = Field(
        "cross_entropy", description='"cross_entropy", or "hinge" as in the authors\' code'
    )
    margin: Weight = Field(1.0, description="hinge margin, in units of the method's temperature")
    denoise: Weight = Field(0.0, description="weight of the matching image's denoising loss")
    steps: Count = Field(60, description="largest number of optimizer steps")
    batch: Size = Field(8, description="items per step")
    timesteps: Timesteps = Field(
        4, description="timesteps of a step, drawn anew for each from those that are scored"
    )
    learning_rate: Rate = Field(2e-3, description="peak rate of AdamW")
    weight_decay: Rate = Field(1e-2, description="weight decay of AdamW")
    rank: Annotated[int, Field(ge=1, le=4096)] = Field(4, description="rank of LoRA")
    tokens: Annotated[int, Field(ge=1, le=4096)] = Field(
        4, description='learned tokens per layer, for the kind "tokens"'
    )
    accumulate: Size = Field(1, description="parts that a batch is computed in, to fit into memory")
    remat: Remat = Field(
        "nothing",
        description="what gradients recompute to save memory: nothing, products (all but matrix "
        "products), blocks (all but blocks' inputs)",
    )
    ridges: List[Ridge] = Field(
        (1.0, 3.0, 10.0, 30.0, 100.0),
        min_length=1,
        max_length=100,
        description='strengths of the prior tried for "weights"',
    )
    held_out: Fraction = Field(0.2, description="part of the shots that decides when to stop")
    check_every: Count = Field(20, description="steps between checks on the held-out shots")
    patience: Count = Field(4, description="checks without improvement before stopping")

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


class ClipRecipe(Checked):
    """A recipe for fine-tuning a CLIP."""

    kind: Literal["full", "projections"] = Field(
        "full", description='what is trained: all params, or "projections"'
    )
    steps: Count = Field(100, description="largest number of optimizer steps")
    batch: Size = Field(64, description="items per step")
    learning_rate: Rate = Field(
        1e-5, description="peak rate of AdamW; the bundled tiny-clip takes 1e-4"
    )
    weight_decay: Rate = Field(1e-2, description="weight decay of AdamW")
    contrast: Weight = Field(
        1.0, description="weight of the loss between items, which CLIPs are trained with"
    )
    held_out: Fraction = Field(0.2, description="part of the shots that decides when to stop")
    check_every: Count = Field(5, description="steps between checks on the held-out shots")
    patience: Count = Field(6, description="checks without improvement before stopping")
