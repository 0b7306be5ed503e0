"""What must be equal for a run to be continued: its config and the digest of its weights."""

from typing import Any

from etils import epath

from dsd_jax.errors import UserError

_NOWHERE = object()


def check_identity(folder: epath.Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """`UserError` if the run in the folder, whose identity was `found`, is another one."""
    there, here = flat(found), flat(expected)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name, _NOWHERE) != here.get(name, _NOWHERE):
            raise UserError(
                f"{folder} holds a run with {name} = {there.get(name)!r}, this one has "
                f"{here.get(name)!r}; take another --workdir or the same config."
            )


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, dict) and value
        leaves |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return leaves
