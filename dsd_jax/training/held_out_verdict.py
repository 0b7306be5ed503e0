"""The verdict of held-out items on what was learned: kept or not, in numbers and in words."""

import math

from pydantic import Field

from dsd_jax.io.validation import Checked


class HeldOutVerdict(Checked):
    """A verdict on params that were learned; `str` says it in words.

    Attributes:
        what: was learned, such as "LoRA".
        kept: whether the gain exceeds its error.
        gain: by how much the mean loss of the held-out items fell.
        error: its standard error.
        items: n that were held out.
        step: of the check with the lowest loss, 0 if that was the frozen model's; None where
            nothing is trained in steps.
    """

    what: str
    kept: bool
    gain: float
    error: float = Field(ge=0)
    items: int = Field(ge=1)
    step: int | None = Field(default=None, ge=0)

    def __str__(self) -> str:
        """Return one sentence without its end."""
        change = f"held-out loss fell by {plus_minus(self.gain, self.error)}"
        if self.kept:
            kept = f"{self.what} kept" if self.step is None else f"kept step {self.step}"
            return f"{kept}: {change} on {self.items} pairs"
        if self.gain <= 0:
            return f"{self.what} gained nothing on {self.items} held-out pairs: not kept"
        at = "" if self.step is None else f" at step {self.step}"
        return (
            f"{self.what} gained less than its error on {self.items} held-out pairs: not kept "
            f"({change}{at})"
        )


def plus_minus(value: float, error: float) -> str:
    """Return "0.051 ± 0.022": a number to the second digit of its error."""
    digits = 3 if error <= 0 else min(9, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
