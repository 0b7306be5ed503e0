"""What must be equal for a run to be continued: its config and the digest of its weights."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten

_NOWHERE = object()
_MOST = 5  # differences in a message


def check_identity(folder: epath.Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise `UserError` if the run in the folder, whose identity was `found`, is another one."""
    if different := differences(found, expected):
        raise UserError(
            f"{folder} holds a run with {different}; take another --workdir or the same config."
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return in words which fields differ, at any depth: "seed = 0, this one has 1"; "" for none.

    Values are JSON values; a field that is missing is None.
    """
    one, other = flat(there), flat(here)
    clauses = [
        f"{name} = {shorten(one.get(name))}, this one has {shorten(other.get(name))}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name, _NOWHERE) != other.get(name, _NOWHERE)
    ]
    more = len(clauses) - _MOST
    return ", and with ".join(clauses[:_MOST]) + (f", and {more} more differ" if more > 0 else "")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"a.b": 1} for {"a": {"b": 1}}."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, dict) and value
        leaves |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return leaves
