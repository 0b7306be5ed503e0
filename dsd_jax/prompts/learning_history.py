"""The history of learning: the held-out loss at each check, as numbers and as a curve."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsd_jax.errors import UserError
from dsd_jax.prompts.prompt_metadata import PromptMetadata

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (6.0, 3.0)  # inches


@dataclass(frozen=True)
class LearningHistory:
    """The held-out losses of a run; the first is the frozen model's.

    Attributes:
        losses: {step: mean held-out loss}, by step.
        kept: the step whose params were kept, 0 for the frozen model; None while it is open.
        steps: of the whole run, 0 if unknown.
    """

    losses: Mapping[int, float]
    kept: int | None = None
    steps: int = 0

    @classmethod
    def of(cls, metadata: PromptMetadata) -> "LearningHistory":
        """Return the history in the metadata of prompts, empty if they say nothing."""
        losses = {int(step): loss for step, loss in (metadata.checks or {}).items()}
        recipe = metadata.recipe.stated() if metadata.recipe else {}
        steps = recipe.get("steps")
        return cls(losses, metadata.kept_step, steps if isinstance(steps, int) else 0)

    def html(self) -> str:
        """Return the curve as an image in HTML."""
        from dsd_jax.io.figures import png_bytes  # heavy

        content = base64.b64encode(png_bytes(self.plot())).decode()
        return f'<img alt="held-out loss by step" src="data:image/png;base64,{content}">'

    def plot(self) -> "Figure":
        """Return a figure of the held-out loss by step.

        Raises:
            UserError: there is nothing to draw, for nothing was trained in steps.
        """
        if not self.losses:
            raise UserError("there is no curve: nothing was trained in steps.")
        from dsd_jax.io.figures import CHOSEN, LINE, OTHER, SOFT, new_figure  # heavy

        figure = new_figure(*_SIZE)
        axes: Any = figure.subplots()
        steps, losses = list(self.losses), list(self.losses.values())
        axes.axhline(losses[0], color=OTHER, linestyle="--", linewidth=1, label="frozen model")
        axes.plot(steps, losses, color=CHOSEN, marker="o", markersize=4, label="held-out pairs")
        if self.kept:
            kept = self.losses[self.kept]
            axes.plot(self.kept, kept, "o", color=CHOSEN, markersize=11, fillstyle="none")
            axes.annotate(
                "kept",
                (self.kept, kept),
                (0, -14),
                textcoords="offset points",
                ha="center",
                va="top",
                color=CHOSEN,
            )
        axes.set_xlim(0, max([self.steps, *steps, 1]))
        axes.margins(y=0.2)
        axes.set_xlabel("step", color=SOFT)
        axes.set_ylabel("held-out loss", color=SOFT)
        axes.tick_params(colors=SOFT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(LINE)
        axes.legend(frameon=False, loc="best")
        return figure
