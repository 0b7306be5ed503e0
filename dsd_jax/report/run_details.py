"""Details of a run that explain its results: names in plain words, how learning went, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple


class Term(NamedTuple):
    """A name in the tables, and what it means in plain words."""

    name: str
    meaning: str


class Setting(NamedTuple):
    """A field of the config whose value is not the default.

    Attributes:
        name: dotted, as in `--config.NAME=VALUE`.
        value: as text.
        default: likewise; None where the field has none.
        description: of the field.
    """

    name: str
    value: str
    default: str | None
    description: str


@dataclass(frozen=True)
class HeldOutGain:
    """A gain on held-out shots, by which what was learned was kept or refused.

    Attributes:
        what: was learned, such as "LoRA" or "weights of itm".
        kept: whether the gain exceeds its error.
        gain: by how much the mean held-out loss fell.
        error: its standard error; None where there are too few shots to tell.
        items: n that decided.
    """

    what: str
    kept: bool
    gain: float
    error: float | None
    items: int | None = None

    @property
    def text(self) -> str:
        """The gain with its error, to the second digit of the error."""
        if self.error is None:
            return "too few shots to tell"
        if self.gain == self.error == 0:  # no step had a lower loss than the frozen model
            return "nothing gained"
        digits = next((d for d in range(6) if self.error * 10**d >= 9.5), 6)
        return f"{self.gain:+.{digits}f} ± {self.error:.{digits}f}"


@dataclass(frozen=True)
class LearningRun:
    """A course of learning from one draw of shots.

    Attributes:
        prompts: the label of the row, such as "lora-256".
        seed: of the draw.
        losses: mean held-out loss by step; empty where nothing is trained in steps.
        kept_step: whose params were kept; 0 is the frozen model.
        gains: of each part that was learned; empty where there were too few shots to tell.
    """

    prompts: str
    seed: int
    losses: Mapping[int, float]
    kept_step: int
    gains: Sequence[HeldOutGain] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the run as `report.json` has it."""
        return asdict(self) | {
            "losses": {str(step): loss for step, loss in self.losses.items()},
            "gains": [asdict(gain) for gain in self.gains],
        }


@dataclass(frozen=True)
class RunDetails:
    """The details that a report tells besides results.

    Attributes:
        methods: the methods of the tables in plain words.
        recipes: the prompts of the tables in plain words.
        learning: how learning went, draw by draw.
        settings: where the config differs from the defaults.
    """

    methods: Sequence[Term] = ()
    recipes: Sequence[Term] = ()
    learning: Sequence[LearningRun] = ()
    settings: Sequence[Setting] = ()

    def renamed(self, names: Mapping[str | None, str]) -> "RunDetails":
        """Return the details with prompts called as `names` says, as far as it does."""
        return replace(
            self,
            recipes=[term._replace(name=names.get(term.name, term.name)) for term in self.recipes],
            learning=[
                replace(run, prompts=names.get(run.prompts, run.prompts)) for run in self.learning
            ],
        )
