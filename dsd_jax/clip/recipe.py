"""How a CLIP is fine-tuned."""

from dataclasses import dataclass

from dsd_jax.errors import UserError

# What of the tree is trained. Not the logit scale: no decision depends on it.
KINDS = {
    "full": ("text_model", "vision_model", "text_projection", "visual_projection"),
    "projections": ("text_projection", "visual_projection"),
}
_COUNTS = ("steps", "batch", "check_every", "patience")
_RATES = ("learning_rate", "weight_decay", "contrast")


@dataclass(frozen=True)
class ClipRecipe:
    """How a CLIP is fine-tuned from a few items.

    Attributes:
        kind: of `KINDS`: all weights, or the two projections alone.
        steps: at most.
        batch: items per step.
        learning_rate: of AdamW, on a cosine.
        weight_decay: of AdamW.
        contrast: weight of the contrastive loss between the items of a batch, which CLIP was
            trained with; 0 for none.
        held_out: part of the items that are held out to decide when to stop.
        check_every: steps between two looks at the held-out items.
        patience: looks without a gain until learning stops.
    """

    kind: str
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    contrast: float
    held_out: float
    check_every: int
    patience: int

    def __post_init__(self):
        """Check names and numbers; raises `UserError`."""
        if self.kind not in KINDS:
            raise UserError(f"kind: '{self.kind}' is unknown; expected {', '.join(KINDS)}.")
        for field in _COUNTS:
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}; expected 1 or more.")
        for field in _RATES:
            if not getattr(self, field) >= 0:
                raise UserError(f"{field} is {getattr(self, field)}; expected 0 or more.")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}; expected a part between 0 and 1.")
