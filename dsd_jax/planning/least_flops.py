"""The least arithmetic of a step: the products that no way of computing it can do without.

A product (matrix product or convolution) of the forward pass costs 2 floating-point operations per
multiply-add. Reverse mode adds, for each of its operands that depends on what is learned, one
product of the same cost. So, over the products that the loss reads,

    least = sum of cost * (1 + operands that depend on what is learned)

Nothing is computed twice, no gradient of frozen weights is formed, and whatever is no product is
free. A step's own count, divided by this, says what rematerialisation and carelessness cost.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from dsd_jax.planning.jaxpr_products import has_product, inner_jaxprs, product_flops

# What becomes of a value: nothing, the loss is computed from it, or its gradient is wanted too.
DEAD, LIVE, WANTED = 0, 1, 2
_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")
_CALLS += ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")

Flags = tuple[int, ...]


class Flops(NamedTuple):
    """Floating-point operations of products, forward and for the gradient."""

    forward: int
    gradient: int

    def plus(self, other: "Flops", times: int = 1) -> "Flops":
        """The sum with `times` the other."""
        return Flops(self.forward + times * other.forward, self.gradient + times * other.gradient)


def forward_flops(function: Callable, *args: Any) -> int:
    """Of the products that the outputs of `function(*args)` are computed from.

    Args:
        function: of arrays, or trees of them; other arguments are bound beforehand.
        args: arrays or ShapeDtypeStructs; shapes as in the whole program, not per device.

    Raises:
        ValueError: a product is in a loop of unknown length, or in something unknown.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    nothing = (0,) * len(jaxpr.invars)
    return _Count().backward(jaxpr, nothing, (LIVE,) * len(jaxpr.outvars))[1].forward


def least_training_flops(loss: Callable, learned: int, *args: Any) -> int:
    """Of the loss and its gradient by the argument number `learned`; the others are frozen.

    Args:
        loss: returns a scalar, or a tuple of it and what is reported beside it.
        learned: position among `args`.
        args: as for `forward_flops`.

    Raises:
        ValueError: as `forward_flops`.
    """
    jaxpr = jax.make_jaxpr(loss)(*args).jaxpr
    sizes = [len(jax.tree.leaves(arg)) for arg in args]
    depends = [int(i == learned) for i, size in enumerate(sizes) for _ in range(size)]
    wanted = (WANTED,) + (LIVE,) * (len(jaxpr.outvars) - 1)
    return sum(_Count().backward(jaxpr, tuple(depends), wanted)[1])


class _Count:
    """Two walks over a jaxpr: which values depend on what is learned, then what is read of them.

    Both are the same for every layer of a kind, so results are kept by (jaxpr, flags).
    """

    def __init__(self):
        self._kept: dict[tuple, Any] = {}

    def forward(self, jaxpr: Jaxpr, depends: Flags) -> Flags:
        """Whether each output depends on what is learned, given which inputs do."""
        key = (jaxpr, depends)
        if key not in self._kept:
            self._kept[key] = _read(self._dependent(jaxpr, depends), jaxpr.outvars)
        return self._kept[key]

    def backward(self, jaxpr: Jaxpr, depends: Flags, outputs: Flags) -> tuple[Flags, Flops]:
        """What becomes of each input, given what becomes of the outputs, and what it costs."""
        key = (jaxpr, depends, outputs)
        if key not in self._kept:
            self._kept[key] = self._walk_back(jaxpr, depends, outputs)
        return self._kept[key]

    def _dependent(self, jaxpr: Jaxpr, depends: Flags) -> dict[Any, int]:
        """The values that depend on what is learned, among all of a jaxpr's."""
        known = dict(zip(jaxpr.invars, depends, strict=True))
        for equation in jaxpr.eqns:
            flags = self._equation_forward(equation, _read(known, equation.invars))
            for var, flag in zip(equation.outvars, flags, strict=True):
                known[var] = flag and int(jnp.issubdtype(var.aval.dtype, jnp.inexact))
        return known

    def _equation_forward(self, equation: JaxprEqn, depends: Flags) -> Flags:
        name = equation.primitive.name
        if name in _CALLS:
            return self.forward(inner_jaxprs(equation)[0], depends)
        if name == "scan":
            return self._scan_forward(equation, depends)[1]
        if name == "cond":
            every = [self.forward(branch, depends[1:]) for branch in inner_jaxprs(equation)]
            return tuple(map(max, zip(*every, strict=True)))
        depend = int(any(depends) and name != "stop_gradient")
        return (depend,) * len(equation.outvars)

    def _walk_back(self, jaxpr: Jaxpr, depends: Flags, outputs: Flags) -> tuple[Flags, Flops]:
        known, total = self._dependent(jaxpr, depends), Flops(0, 0)
        fate: dict[Any, int] = {}
        _meet(fate, jaxpr.outvars, outputs)
        for equation in reversed(jaxpr.eqns):
            after = _read(fate, equation.outvars)
            if any(after):
                before = _read(known, equation.invars)
                flags, flops = self._equation_backward(equation, before, after)
                _meet(fate, equation.invars, flags)
                total = total.plus(flops)
        return _read(fate, jaxpr.invars), total

    def _equation_backward(
        self, equation: JaxprEqn, depends: Flags, after: Flags
    ) -> tuple[Flags, Flops]:
        name = equation.primitive.name
        if name in _CALLS:
            return self.backward(inner_jaxprs(equation)[0], depends, after)
        if name == "scan":
            return self._scan_backward(equation, depends, after)
        if name == "cond":
            return self._cond_backward(equation, depends, after)
        if any(has_product(inner) for inner in inner_jaxprs(equation)):
            raise ValueError(f"how often the products inside a '{name}' are computed is not known")
        wanted = max(after) == WANTED and name != "stop_gradient"
        flags = tuple(WANTED if wanted and depend else LIVE for depend in depends)
        cost = product_flops(equation)
        return flags, Flops(cost, cost * flags[:2].count(WANTED))

    def _scan_forward(self, equation: JaxprEqn, depends: Flags) -> tuple[list[Flags], Flags]:
        """Which inputs of each turn depend, and which outputs; a carry may begin to at any turn."""
        consts, carries = equation.params["num_consts"], equation.params["num_carry"]
        turns, carry = [], depends[consts : consts + carries]
        ever = (0,) * (len(equation.outvars) - carries)
        for _ in range(equation.params["length"]):
            inputs = depends[:consts] + carry + depends[consts + carries :]
            outputs = self.forward(inner_jaxprs(equation)[0], inputs)
            carry = outputs[:carries]
            ever = tuple(map(max, ever, outputs[carries:]))
            turns.append(inputs)
        return turns, carry + ever

    def _scan_backward(
        self, equation: JaxprEqn, depends: Flags, after: Flags
    ) -> tuple[Flags, Flops]:
        consts, carries = equation.params["num_consts"], equation.params["num_carry"]
        carry, total, fate = after[:carries], Flops(0, 0), (DEAD,) * len(depends)
        for inputs in reversed(self._scan_forward(equation, depends)[0]):
            flags, flops = self.backward(inner_jaxprs(equation)[0], inputs, carry + after[carries:])
            carry = flags[consts : consts + carries]
            fate = tuple(map(max, fate, flags))
            total = total.plus(flops)
        return fate[:consts] + carry + fate[consts + carries :], total

    def _cond_backward(
        self, equation: JaxprEqn, depends: Flags, after: Flags
    ) -> tuple[Flags, Flops]:
        """As if the cheapest branch were taken: which one is known when it runs."""
        every = [self.backward(branch, depends[1:], after) for branch in inner_jaxprs(equation)]
        flags = tuple(map(max, zip(*(flags for flags, _ in every), strict=True)))
        return (LIVE, *flags), min((flops for _, flops in every), key=sum)


def _read(flags: dict[Any, int], variables: Sequence[Any]) -> Flags:
    return tuple(0 if isinstance(var, Literal) else flags.get(var, 0) for var in variables)


def _meet(fate: dict[Any, int], variables: Sequence[Any], flags: Flags) -> None:
    """A value's fate is the best of all its uses."""
    for var, flag in zip(variables, flags, strict=True):
        if not isinstance(var, Literal):
            fate[var] = max(fate.get(var, DEAD), flag)
