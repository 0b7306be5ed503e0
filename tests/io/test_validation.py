"""The gate for values from outside: typed objects, or one sentence."""

import re
from typing import Annotated, Literal

import pytest
from pydantic import Field

from dsd_jax.errors import UserError
from dsd_jax.io.validation import Checked, List, parse


class Settings(Checked):
    """An object with a field of each kind."""

    count: Annotated[int, Field(ge=1, le=5)]
    rate: float = 0.5
    mode: Literal["slow", "fast"] = "slow"
    sizes: List[int] = ()


def test_right_values_become_a_frozen_object():
    settings = parse(Settings, {"count": 3, "rate": 1, "sizes": [1, 2]}, "settings.json")
    assert (settings.count, settings.rate, settings.sizes) == (3, 1.0, (1, 2))
    with pytest.raises(ValueError, match="frozen"):
        settings.count = 4


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"count": 0}, "count is 0, expected 1 or more"),
        ({"count": 6}, "count is 6, expected 5 or less"),
        ({"count": 1.0}, "count is 1.0, expected a whole number"),
        ({"count": True}, "count is True, expected a whole number"),
        ({"count": "1"}, "count is '1', expected a whole number"),
        ({"count": 10**5000}, "count is a int, expected 5 or less"),
        ({"count": 1, "rate": float("nan")}, "rate is nan, expected a finite number"),
        ({"count": 1, "mode": "fas"}, "mode is 'fas', expected 'slow' or 'fast'"),
        ({"count": 1, "sizes": [1, "b"]}, "sizes.1 is 'b', expected a whole number"),
        ({"count": 1, "sizes": "12"}, "sizes is '12', expected a list"),
        ({"count": 1, "cuont": 1}, "'cuont' is unknown"),
        ({}, "count is missing"),
        ({"count": 0, "rate": "x"}, "count is 0, expected 1 or more; rate is 'x', expected a numb"),
    ],
)
def test_wrong_values_are_one_sentence(values, sentence):
    with pytest.raises(UserError, match=re.escape(f"settings.json: {sentence}")) as raised:
        parse(Settings, values, "settings.json", "use ours")
    assert str(raised.value).endswith("; use ours.") and "\n" not in str(raised.value)
