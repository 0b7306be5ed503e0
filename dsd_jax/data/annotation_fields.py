"""The types of values in annotation files: captions, names and numbers of images, boxes.

Whatever a file holds is parsed by `tables.parse_rows` into a model with such fields.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints

from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked

_MOST_DIGITS = 15  # in a number of an image
_FARTHEST = 1e6  # pixels; no image is so wide


class FileRow(Checked):
    """A row or entry of a file that other people write: what nobody asks for is ignored."""

    model_config = ConfigDict(extra="ignore")


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError(f"is {shorten(text)}, expected text that is not empty")
    return text


def _check_path(name: str) -> str:
    if "\0" in name or "\n" in name or "\r" in name:
        raise ValueError(f"is {shorten(name)}, expected the name of an image, in one line")
    return name


def _check_digits(text: str) -> str:
    # str.isdigit alone would take superscripts and other scripts' digits.
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"is {shorten(text)}, expected the number of an image, in digits 0 to 9")
    return text


def _to_name(value: Any) -> Any:
    """Make a text of a whole number, for labels are often numbers, and "all" of nothing."""
    if value is None or value == "" and isinstance(value, str):
        return "all"
    return str(value) if type(value) is int else value


# Limits on length make pydantic look at the characters, of which lone surrogates are none.
AnyText = Annotated[str, StringConstraints(max_length=1_000_000)]
Text = Annotated[AnyText, AfterValidator(_check_text)]
Name = Annotated[Text, BeforeValidator(_to_name)]
ImagePath = Annotated[Text, AfterValidator(_check_path)]
Digits = Annotated[Text, AfterValidator(_check_digits)]
Number = Annotated[int, Field(ge=0, lt=10**_MOST_DIGITS)]
Pixels = Annotated[float, Field(ge=-_FARTHEST, le=_FARTHEST)]


def check_different(right: str, wrong: str, what: str = "captions") -> None:
    """Refuse a wrong candidate that is the right one.

    Raises:
        ValueError: it is, so that nothing could tell them apart.
    """
    if right == wrong:
        raise ValueError(f"has two {what} that are the same, {shorten(right)}")
