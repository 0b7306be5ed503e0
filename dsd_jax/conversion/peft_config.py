"""PEFT's `LoraConfig` in `adapter_config.json` or diffusers' metadata, which decides LoRA's scale.

Its patterns of module names are regular expressions from an untrusted file. Those that could
backtrack without end are refused before they are tried.
"""

import re
import time
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked, parse

REMEDY = "save the adapter again with diffusers or PEFT"
_Alpha = Annotated[float, Field(ge=-1e9, le=1e9)]
_LITERAL = re.compile(r"\\?[\w.-]+(?:\\?\.[\w-]+)*")
_MAX_PATTERNS, _MAX_LETTERS = 10_000, 300
# A repeat of one letter makes matching slower by a factor of the name's length, an alternative or
# an option by two; a repeated group can make it exponential in that length.
_MAX_REPEATS, _MAX_CHOICES = 2, 8
_MAX_SECONDS = 5.0
_REFUSED = re.compile(r"\)\s*[*+{]|\(\?(?!:)|\\[1-9]")


class PeftConfig(Checked):
    """The fields that decide an adapter's scale, or that make it another kind of adapter."""

    model_config = ConfigDict(extra="ignore")

    peft_type: str | None = None
    lora_alpha: _Alpha = 8.0  # of PEFT's `LoraConfig`, where a file does not say
    alpha_pattern: Annotated[Mapping[str, _Alpha], Field(max_length=_MAX_PATTERNS)] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> "PeftConfig":
        if self.peft_type not in (None, "LORA"):
            raise ValueError(f"peft_type is {shorten(self.peft_type)}, expected 'LORA'")
        if self.use_dora:
            raise ValueError(
                "use_dora is true, but an update of DoRA depends on the weight's norm and has no "
                "place in prompts; train without use_dora"
            )
        for pattern in self.alpha_pattern or {}:
            _check_pattern(pattern)
        return self

    def scales(self, modules: Mapping[str, int], where: str) -> dict[str, float]:
        """Return the scale of each module's update.

        Args:
            modules: rank of each module by its path.
            where: source of the config in messages.

        Raises:
            UserError: matching the patterns takes too long.
        """
        end = time.monotonic() + _MAX_SECONDS
        scales = {}
        for module, rank in modules.items():
            alpha = self.lora_alpha
            for pattern, stated in (self.alpha_pattern or {}).items():
                if _matches(pattern, module):
                    alpha = stated
                    break
                if time.monotonic() > end:
                    raise UserError(
                        f"{where}: its alpha_pattern takes more than {_MAX_SECONDS:.0f} seconds "
                        f"to match; {REMEDY}, with one plain module name for each entry."
                    )
            scales[module] = alpha / (rank**0.5 if self.use_rslora else rank)
        return scales


def parse_peft_config(values: Mapping[str, Any], where: str) -> PeftConfig:
    """Return a checked `LoraConfig`; raises `UserError`."""
    return parse(PeftConfig, values, where, REMEDY)


def _matches(pattern: str, module: str) -> bool:
    """Return whether a pattern matches the end of a module's path (PEFT's `get_pattern_key`)."""
    if _LITERAL.fullmatch(pattern) and "\\" not in pattern:
        return module == pattern or module.endswith(f".{pattern}")
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _check_pattern(pattern: str) -> None:
    """Raise `ValueError` for an invalid pattern and one that may take exponential time."""
    if len(pattern) > _MAX_LETTERS:
        raise ValueError(f"alpha_pattern has a pattern of {len(pattern)} letters, expected fewer")
    plain = re.sub(r"\\[^1-9]", "x", pattern)  # without escaped letters
    plain = re.sub(r"\[[^\]]*\]", "x", plain)  # and sets of them
    repeats, choices = len(re.findall(r"[*+{]", plain)), len(re.findall(r"[|?]", plain))
    if _REFUSED.search(plain) or repeats > _MAX_REPEATS or choices > _MAX_CHOICES:
        raise ValueError(
            f"alpha_pattern has {shorten(pattern)}, a regular expression that may take for ever; "
            "expected names of modules, with few repeats and none of a group"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"alpha_pattern has {shorten(pattern)}, no regular expression ({error})"
        ) from error
