"""Equations of a jaxpr: what a product costs, and which jaxprs are inside."""

from math import prod

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from dsd_jax.planning.convolution import Side, multiply_adds


def product_flops(equation: JaxprEqn) -> int:
    """Floating-point operations, 2 per multiply-add; 0 for what is no product."""
    if equation.primitive.name == "dot_general":
        left, output = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        contracted = equation.params["dimension_numbers"][0][0]
        return 2 * prod(left[axis] for axis in contracted) * prod(output)
    if equation.primitive.name == "conv_general_dilated":
        return 2 * _convolution(equation)
    return 0


def _convolution(equation: JaxprEqn) -> int:
    params, variables = equation.params, (*equation.invars, equation.outvars[0])
    picture, kernel, output = (  # each as (rows or outputs, channels or inputs, *space)
        [variable.aval.shape[axis] for axis in spec]
        for variable, spec in zip(variables, params["dimension_numbers"], strict=True)
    )
    options = zip(
        params["window_strides"],
        [before for before, _ in params["padding"]],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    )
    sizes = zip(picture[2:], kernel[2:], output[2:], strict=True)
    sides = [Side(*size, *option) for size, option in zip(sizes, options, strict=True)]
    return multiply_adds(output[0], kernel[1], output[1], sides)


def inner_jaxprs(equation: JaxprEqn) -> list[Jaxpr]:
    """The jaxprs among an equation's parameters."""
    found = []
    for value in equation.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, ClosedJaxpr):
                found.append(part.jaxpr)
            elif isinstance(part, Jaxpr):
                found.append(part)
    return found


def has_product(jaxpr: Jaxpr) -> bool:
    """Whether there is any, however deep inside."""
    return any(
        product_flops(equation) or any(map(has_product, inner_jaxprs(equation)))
        for equation in jaxpr.eqns
    )
