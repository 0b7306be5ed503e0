"""How a CLIP is fine-tuned: the fields of `config.tune`."""

from typing import Literal

from pydantic import Field

from dsd_jax.config.field_types import Count, Fraction, Rate, Size, Weight
from dsd_jax.io.validation import Checked

# What of the tree is trained. Not the logit scale: no decision depends on it.
KINDS = {
    "full": ("text_model", "vision_model", "text_projection", "visual_projection"),
    "projections": ("text_projection", "visual_projection"),
}


class ClipRecipe(Checked):
    """A recipe for fine-tuning a CLIP on few items; the descriptions say what each field does."""

    kind: Literal["full", "projections"] = Field(
        "full", description='all weights, or "projections"'
    )
    steps: Count = Field(100, description="of the optimizer, at most")
    batch: Size = Field(64, description="items per step")
    learning_rate: Rate = Field(
        1e-5, description="of AdamW, at its highest; the bundled tiny-clip takes 1e-4"
    )
    weight_decay: Rate = Field(1e-2, description="of AdamW")
    contrast: Weight = Field(
        1.0, description="weight of the loss between items, which CLIPs are trained with"
    )
    held_out: Fraction = Field(0.2, description="part of the shots that decides when to stop")
    check_every: Count = Field(5, description="steps between looks at it")
    patience: Count = Field(6, description="looks without improvement before stopping")
