"""Validation of values from outside by pydantic models, whose errors become one sentence.

All that enters the program (a config, a model's JSON files, prompts, adapters, annotations) is
parsed into a frozen `Checked` model where it enters; the rest of the program receives typed values
only. Pydantic rather than msgspec: it reports every wrong field at once, with its path and its
input, and knows finite numbers and ranges.
"""

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import printable, shorten

_MISTAKES = 5  # in one message
# Pydantic's type of mistake -> what was expected; its `ctx` fills the braces.
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_unicode": "text in Unicode, without half of a surrogate pair",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object with named fields",
    "mapping_type": "an object with named fields",
    "model_type": "an object with named fields",
    "model_attributes_type": "an object with named fields",
    "none_required": "null",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "missing": "a value",
}

MOST_SEED = 2**32 - 1


class Checked(BaseModel):
    """A frozen object whose fields were checked: no conversion between types, finite numbers.

    Unknown fields are refused; a subclass for a file that other programs write says
    `model_config = ConfigDict(extra="ignore")`.
    """

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


Value = TypeVar("Value")
Model = TypeVar("Model", bound=BaseModel)

# JSON and configs have lists where a frozen object has tuples.
List = Annotated[
    tuple[Value, ...], BeforeValidator(lambda value: tuple(value) if type(value) is list else value)
]


def parse(kind: type[Model], values: Mapping[str, Any], where: str, remedy: str = "") -> Model:
    """Check `values` and make an object of the class `kind` of them.

    Args:
        kind: a subclass of `Checked`.
        values: by field.
        where: what they were read from, such as a file's name; starts the message.
        remedy: how to mend it, a clause at the end of the message.

    Raises:
        UserError: some values are wrong; names each field, its value and what was expected.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}{remedy and f'; {remedy}'}.") from error


def explain(error: ValidationError) -> str:
    """Return pydantic's mistakes, each as a clause that names field, value and expectation."""
    return summarize([clause for _, clause in mistakes_of(error)])


def mistakes_of(error: ValidationError) -> list[tuple[str, str]]:
    """Return (dotted field, clause that says what is wrong) of each mistake, none twice."""
    errors = error.errors(include_url=False)
    inside = {each["loc"][:-1] for each in errors}
    # Pydantic counts the right entries only, so a list with a wrong one is too short as well.
    shown = [each for each in errors if each["type"] != "too_short" or each["loc"] not in inside]
    return list(dict.fromkeys(_mistake(each) for each in shown))


def summarize(clauses: Sequence[str]) -> str:
    """Return the first few clauses in one line, and how many more there are."""
    more = len(clauses) - _MISTAKES
    return "; ".join(clauses[:_MISTAKES]) + (f"; and {more} more" if more > 0 else "")


def mistake(field: str, reason: str) -> PydanticCustomError:
    """Return the error for a validator to raise.

    The `reason` continues a sentence whose subject is the `field`, which is one of the object that
    is validated, such as "batch" in a check of the whole.
    """
    return PydanticCustomError("mistake", "{reason}", {"field": field, "reason": printable(reason)})


def _mistake(error: Mapping[str, Any]) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    path = [str(part) for part in error["loc"] if not _is_branch(part)]
    field = ".".join([*path, context["field"]] if kind == "mistake" else path)
    return field, printable(_clause(field, kind, context, error))


def _clause(field: str, kind: str, context: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    subject = f"{field or 'it'} is {shorten(error['input'])}"
    if kind == "missing":
        return f"{field} is missing"
    if kind == "extra_forbidden":
        return f"'{field}' is unknown"
    if kind == "mistake":
        return f"{field} {context['reason']}"
    if kind in ("value_error", "assertion_error"):  # a validator's own words
        reason = str(context.get("error", error["msg"])).removesuffix(".")
        return f"{field} {reason}" if field else reason
    field = field or "it"
    if kind not in _EXPECTED:  # pydantic's own sentence, in which braces mean nothing
        return f"{subject}: {error['msg']}"
    limits = {
        name: int(limit) if isinstance(limit, float) and limit.is_integer() else limit
        for name, limit in context.items()
    }
    expected = _EXPECTED[kind].format(**limits)
    return f"{subject}, expected {expected}"


def _is_branch(part: object) -> bool:
    """Return whether a part of a path names a member of a union instead of a field."""
    return isinstance(part, str) and bool(re.search(r"[\[(]", part))


def check_seed(seed: Any, name: str = "seed") -> int:
    """Return the seed of noise as an int; JAX's keys are made of 32 bits.

    Raises:
        UserError: it is no whole number, or JAX would wrap it around: 2**32 would be 0 again.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number <= MOST_SEED:
        raise UserError(f"{name} is {seed!r}; expected a whole number from 0 to {MOST_SEED}.")
    return number
