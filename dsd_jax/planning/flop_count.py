"""The floating-point operations of a step's products, and the fewest that it cannot do without.

A product (matrix product or convolution) of the forward pass costs 2 floating-point operations per
multiply-add. Reverse mode adds, for each of its operands that depends on what is learned, one
product of the same cost. So, over the products that the loss reads,

    least = sum of cost * (1 + operands that depend on what is learned)

Nothing is computed twice, no gradient of frozen weights is formed, and whatever is no product is
free. A step's own count, divided by this, says what rematerialisation and carelessness cost.
"""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

_CALLS = ("jit", "pjit", "closed_call", "core_call", "eval_jaxpr", "checkpoint", "remat", "remat2")
_CALLS += ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
_LITERAL = -1  # the number of all constants inside a program

Values = tuple[int, ...]


class _Operation(NamedTuple):
    """An equation of an unrolled program, whose values are numbered.

    Attributes:
        flops: floating-point operations; 0 for what is no product.
        inputs, outputs: values.
        differentiable: those of the outputs that a gradient may pass.
    """

    flops: int
    inputs: Values
    outputs: Values
    differentiable: Values


def forward_flops(function: Callable, *args: Any) -> int:
    """Return the cost of the products that the outputs of `function(*args)` are computed from.

    Args:
        function: of arrays, or trees of them; other arguments are bound beforehand.
        args: arrays or ShapeDtypeStructs; shapes as in the whole program, not per device.

    Raises:
        ValueError: a product is in a loop of unknown length, or in something unknown.
    """
    program = _Program()
    _, outputs = program.unroll(jax.make_jaxpr(function)(*args).jaxpr)
    return program.flops(frozenset(), outputs, frozenset())


def least_training_flops(loss: Callable, learned: int, *args: Any) -> int:
    """Return the least cost of the loss and its gradient by the argument number `learned`.

    Args:
        loss: returns a scalar, or a tuple of it and what is reported beside it.
        learned: position among `args`; the others are frozen.
        args: as for `forward_flops`.

    Raises:
        ValueError: as `forward_flops`.
    """
    program = _Program()
    inputs, outputs = program.unroll(jax.make_jaxpr(loss)(*args).jaxpr)
    first = sum(len(jax.tree.leaves(arg)) for arg in args[:learned])
    count = len(jax.tree.leaves(args[learned]))
    return program.flops(frozenset(inputs[first : first + count]), outputs, frozenset(outputs[:1]))


class _Program:
    """The equations of a program in the order of execution, calls inlined and loops unrolled."""

    def __init__(self) -> None:
        self._operations: list[_Operation] = []
        self._values = 0

    def unroll(self, jaxpr: Jaxpr) -> tuple[Values, Values]:
        """Append a jaxpr; return its inputs and outputs."""
        inputs = self._new(len(jaxpr.invars))
        return inputs, self._append(jaxpr, inputs)

    def flops(self, learned: frozenset[int], outputs: Values, losses: frozenset[int]) -> int:
        """Return the cost of outputs, and of the gradient of `losses` by the values `learned`."""
        dependent, total = set(learned), 0
        for operation in self._operations:
            if not dependent.isdisjoint(operation.inputs):
                dependent.update(operation.differentiable)
        needed, with_gradient = set(outputs), set(losses)
        for operation in reversed(self._operations):
            if needed.isdisjoint(operation.outputs):
                continue
            needed.update(operation.inputs)
            total += operation.flops
            if not with_gradient.isdisjoint(operation.differentiable):
                with_gradient.update(dependent.intersection(operation.inputs))
                operands = operation.inputs[:2]
                total += operation.flops * sum(value in dependent for value in operands)
        return total

    def _new(self, count: int) -> Values:
        self._values += count
        return tuple(range(self._values - count, self._values))

    def _append(self, jaxpr: Jaxpr, inputs: Values) -> Values:
        """Append a jaxpr's equations for these inputs; return its outputs."""
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known.update(zip(jaxpr.constvars, self._new(len(jaxpr.constvars)), strict=True))

        def read(variables: Iterable[Any]) -> Values:
            return tuple(_LITERAL if isinstance(v, Literal) else known[v] for v in variables)

        for equation in jaxpr.eqns:
            outputs = self._append_equation(equation, read(equation.invars))
            known.update(zip(equation.outvars, outputs, strict=True))
        return read(jaxpr.outvars)

    def _append_equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        name, inner = equation.primitive.name, _inner_jaxprs(equation)
        if name in _CALLS:
            return self._append(inner[0], inputs)
        if name == "scan":
            return self._append_scan(equation, inner[0], inputs)
        if name == "cond":  # as if the cheapest branch were taken: which one is known when it runs
            return self._append(min(inner, key=_all_flops), inputs[1:])
        if any(map(_all_flops, inner)):
            raise ValueError(f"how often the products inside a '{name}' are computed is not known")
        flops = product_flops(equation)
        outputs = self._new(len(equation.outvars))
        differentiable = tuple(
            value
            for value, variable in zip(outputs, equation.outvars, strict=True)
            if name != "stop_gradient" and _is_inexact(variable)
        )
        self._operations.append(_Operation(flops, inputs, outputs, differentiable))
        return outputs

    def _append_scan(self, equation: JaxprEqn, body: Jaxpr, inputs: Values) -> Values:
        """Append every iteration; a stacked output has all iterations' values for inputs."""
        # By their axes: the parameters that say how many these are differ between versions of JAX.
        last = len(inputs) - _count_sliced(equation.invars, body.invars)
        carried = len(equation.outvars) - _count_sliced(equation.outvars, body.outvars)
        first = last - carried
        carry, turns = inputs[first:last], []
        for _ in range(equation.params["length"]):
            outputs = self._append(body, inputs[:first] + carry + inputs[last:])
            carry = outputs[:carried]
            turns.append(outputs[carried:])
        stacked = self._new(len(equation.outvars) - len(carry))
        for value, parts in zip(stacked, zip(*turns, strict=True), strict=False):
            self._operations.append(_Operation(0, parts, (value,), (value,)))
        return carry + stacked


def _count_sliced(outer: Sequence[Any], inner: Sequence[Any]) -> int:
    """Return how many values a scan passes its body slice by slice: they have one axis more."""
    pairs = zip(outer, inner, strict=True)
    return sum(len(_shape(value)) > len(_shape(part)) for value, part in pairs)


def _inner_jaxprs(equation: JaxprEqn) -> list[Jaxpr]:
    """Return the jaxprs among an equation's parameters."""
    leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
    return [getattr(leaf, "jaxpr", leaf) for leaf in leaves if _is_jaxpr(leaf)]


def _is_jaxpr(value: Any) -> bool:
    # Before JAX 0.11 one with its constants is a class of its own, which holds a Jaxpr.
    return isinstance(getattr(value, "jaxpr", value), Jaxpr)


def _all_flops(jaxpr: Jaxpr) -> int:
    """Return the cost of all products, however deep inside, each counted once."""
    inner = [one for equation in jaxpr.eqns for one in _inner_jaxprs(equation)]
    return sum(map(product_flops, jaxpr.eqns)) + sum(map(_all_flops, inner))


def product_flops(equation: JaxprEqn) -> int:
    """Return the floating-point operations, 2 per multiply-add; 0 for what is no product."""
    if equation.primitive.name == "dot_general":
        left, output = _shape(equation.invars[0]), _shape(equation.outvars[0])
        contracted = equation.params["dimension_numbers"][0][0]
        return 2 * prod(left[axis] for axis in contracted) * prod(output)
    if equation.primitive.name == "conv_general_dilated":
        return 2 * _convolution_multiply_adds(equation)
    return 0


def _convolution_multiply_adds(equation: JaxprEqn) -> int:
    """Return how often an element of the input meets one of the kernel: not in the padding."""
    params, variables = equation.params, (*equation.invars, equation.outvars[0])
    image, kernel, output = (  # each as (rows or outputs, channels or inputs, *space)
        [_shape(variable)[axis] for axis in spec]
        for variable, spec in zip(variables, params["dimension_numbers"], strict=True)
    )
    count = output[0] * kernel[1] * output[1]
    for axis, (before, _) in enumerate(params["padding"]):
        dilation = params["lhs_dilation"][axis]
        outputs = np.arange(output[2 + axis])[:, None] * params["window_strides"][axis]
        positions = outputs + np.arange(kernel[2 + axis]) * params["rhs_dilation"][axis] - before
        inside = (positions >= 0) & (positions <= (image[2 + axis] - 1) * dilation)
        count *= int(np.count_nonzero(inside & (positions % dilation == 0)))
    return count


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _is_inexact(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)
