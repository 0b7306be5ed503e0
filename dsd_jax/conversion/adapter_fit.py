"""Whether an adapter is whole and fits a model: all that does not is told at once."""

from collections.abc import Iterable, Mapping

from dsd_jax.conversion.adapter import Adapter
from dsd_jax.conversion.adapter_names import Name
from dsd_jax.errors import UserError
from dsd_jax.weights.strict_fit import listed

Shapes = Mapping[str, Mapping[str, tuple[int, int]]]


def check_adapter(adapter: Adapter, shapes: Shapes | None, model: str = "") -> None:
    """Checks names and shapes.

    Args:
        adapter: as its file has it.
        shapes: `prompts.attention_shapes` of the model it is for; without them the adapter's
            tensors are compared with each other alone.
        model: what that model is called.

    Raises:
        UserError: tensors are missing, extra or of another shape, listed in one message.
    """
    wrong = list(_wrong(adapter, shapes))
    missing = [
        f"  - {name.authors if adapter.complete else name.diffusers}"
        for name in sorted(_wanted(adapter, shapes) - set(adapter.tensors))
    ]
    extra = [
        f"  + {adapter.spelled[name]} {tensor.shape}"
        for name, tensor in adapter.tensors.items()
        if shapes is not None and name.path not in shapes
    ]
    if lines := listed("adapter", missing, extra, wrong):
        what = "is not a whole adapter; fetch it again, or save it again"
        if model:
            what = f"does not fit {model}; give the model it was trained for, and all of its file"
        raise UserError(f"{adapter.source} {what}:\n" + "\n".join(lines))


def _wanted(adapter: Adapter, shapes: Shapes | None) -> set[Name]:
    """Both parts of all that is there, and of all layers where its format has them all."""
    wanted = {(name.path, name.projection) for name in adapter.tensors}
    if adapter.complete and shapes is not None:
        wanted |= {(path, projection) for path in shapes for projection in shapes[path]}
    return {Name(*projection, part) for projection in wanted for part in ("down", "up")}


def _wrong(adapter: Adapter, shapes: Shapes | None) -> Iterable[str]:
    for name, tensor in adapter.tensors.items():
        expected = _expected(adapter, name, (shapes or {}).get(name.path, {}).get(name.projection))
        if name.part == "alpha":  # one number, in whatever shape
            if tensor.size != 1:
                yield f"  ~ {adapter.spelled[name]} is {tensor.shape}, expected one number"
            continue
        fits = tensor.ndim == len(expected) and all(
            found and want in (None, found)
            for want, found in zip(expected, tensor.shape, strict=True)
        )
        if not fits:
            shape = ", ".join("any" if want is None else str(want) for want in expected)
            yield f"  ~ {adapter.spelled[name]} is {tensor.shape}, expected ({shape})"


def _expected(
    adapter: Adapter, name: Name, shape: tuple[int, int] | None
) -> tuple[int | None, ...]:
    """The shape that a tensor should have; None where any number is right."""
    inputs, outputs = shape or (None, None)
    down = adapter.tensors.get(name._replace(part="down"))
    rank = down.shape[0] if down is not None and down.ndim == 2 else None
    return (rank, inputs) if name.part == "down" else (outputs, rank)
