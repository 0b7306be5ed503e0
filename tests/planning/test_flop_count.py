"""The least arithmetic, against counting by hand and against XLA's own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dsd_jax.planning.flop_count import forward_flops, least_training_flops

ROWS, F = 4, 8
ONE = 2 * ROWS * F * F  # one product of rows with a square matrix
X = jax.ShapeDtypeStruct((ROWS, F), jnp.float32)
W = jax.ShapeDtypeStruct((F, F), jnp.float32)


def test_a_product_forward():
    assert forward_flops(lambda x, w: x @ w, X, W) == ONE


def test_batched_products_count_every_batch():
    x, y = jnp.zeros((5, 2, 3)), jnp.zeros((5, 3, 7))
    assert forward_flops(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), x, y) == 2 * 5 * 2 * 3 * 7


def test_frozen_layer_before_the_learned_one_has_no_gradient():
    def loss(w, frozen, x):
        return jnp.sum(jnp.tanh(x @ frozen) @ w)

    assert least_training_flops(loss, 0, W, W, X) == ONE + 2 * ONE


def test_frozen_layer_behind_the_learned_one_passes_the_gradient_on():
    def loss(w, frozen, x):
        return jnp.sum(jnp.tanh(x @ w) @ frozen)

    assert least_training_flops(loss, 0, W, W, X) == 2 * ONE + 2 * ONE


def test_both_operands_depend():
    def loss(w, x):
        h = x @ w
        return jnp.sum(h @ h.T)

    assert least_training_flops(loss, 0, W, X) == 2 * ONE + 3 * 2 * ROWS * F * ROWS


def test_low_rank_update_beside_a_frozen_matrix():
    rank = 2
    down, up = jnp.zeros((F, rank)), jnp.zeros((rank, F))

    def loss(lora, w, x):
        for _ in range(2):
            x = x @ w + (x @ lora[0]) @ lora[1]
        return jnp.sum(x)

    thin = 2 * ROWS * F * rank
    first = ONE + 2 * thin + 3 * thin
    second = 2 * ONE + 3 * thin + 3 * thin
    assert least_training_flops(loss, 0, (down, up), W, X) == first + second
    assert forward_flops(loss, (down, up), W, X) == 2 * (ONE + 2 * thin)


def test_dead_code_is_free():
    def loss(w, x):
        _ = (x @ w) @ w
        return jnp.sum(x @ w), jnp.zeros(())

    # make_jaxpr keeps what nobody reads.
    assert str(jax.make_jaxpr(loss)(W, X)).count("dot_general") == 3
    assert least_training_flops(loss, 0, W, X) == 2 * ONE
    assert forward_flops(loss, W, X) == ONE


def test_dead_code_inside_a_call_is_free():
    @jax.jit
    def both(w, x):
        return x @ w, (x @ w) @ w

    assert least_training_flops(lambda w, x: jnp.sum(both(w, x)[0]), 0, W, X) == 2 * ONE


def test_what_is_reported_beside_the_loss_has_no_gradient():
    def loss(w, x):
        h = x @ w
        return jnp.sum(h), h @ w

    assert least_training_flops(loss, 0, W, X) == 2 * ONE + ONE


@pytest.mark.parametrize("stop", [lax.stop_gradient, lambda x: jnp.argmax(x, -1, keepdims=True)])
def test_no_gradient_through_what_has_none(stop):
    def loss(w, x):
        return jnp.sum((stop(x @ w) + x) @ w)

    assert least_training_flops(loss, 0, W, X) == ONE + 2 * ONE


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, jax.custom_jvp, jax.custom_vjp])
def test_calls_are_looked_into_and_nothing_is_recomputed(wrap):
    inner = wrap(lambda x, w: jnp.sin(x @ w))
    if wrap is jax.custom_jvp:
        inner.defjvp(lambda p, t: (inner(*p), t[0]))
    if wrap is jax.custom_vjp:
        inner.defvjp(lambda x, w: (inner(x, w), x), lambda x, g: (g, g))

    def loss(w, x):
        return jnp.sum(inner(inner(x, w), w))

    assert least_training_flops(loss, 0, W, X) == 2 * ONE + 3 * ONE


def test_a_map_within_what_is_recomputed():
    @jax.checkpoint  # as self-attention in chunks within a block
    def chunks(x, w):
        return lax.map(jax.checkpoint(lambda row: jnp.tanh(row @ w) @ w), x)

    def loss(w, x):
        return jnp.sum(chunks(x, w))

    assert forward_flops(loss, W, X) == 2 * ONE
    assert least_training_flops(loss, 1, W, X) == 4 * ONE
    assert forward_flops(jax.grad(loss, 1), W, X) == 3 * ONE  # the first again, both backwards


def test_scan_multiplies_by_its_length():
    def run(ws, x):
        return jnp.sum(lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, ws)[0])

    ws = jnp.zeros((5, F, F))
    assert forward_flops(run, ws, X) == 5 * ONE
    assert least_training_flops(run, 0, ws, X) == 2 * ONE + 4 * 3 * ONE


def test_scan_whose_carry_begins_to_depend_at_its_second_turn():
    def loss(w, frozen, x):
        def turn(carry, _):
            old, new = carry
            return (new, new @ w), old @ frozen

        return jnp.sum(lax.scan(turn, (x, x), length=3)[1])

    # old is x, x, x @ w: three products with `frozen`, the last of which passes a gradient on, and
    # one with w, which has a gradient by w; nobody reads the other products with w.
    assert least_training_flops(loss, 0, W, W, X) == (3 + 1) * ONE + (1 + 1) * ONE


def test_empty_scan_is_free():
    assert forward_flops(lambda x: lax.scan(lambda h, _: (h @ h.T, None), x, length=0)[0], W) == 0


def test_map_over_chunks():
    xs = jnp.zeros((6, ROWS, F))
    assert forward_flops(lambda xs, w: lax.map(lambda x: x @ w, xs), xs, W) == 6 * ONE


def test_condition_counts_its_cheaper_branch():
    def run(w, x):
        return lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w)

    assert forward_flops(run, W, X) == ONE


def test_loop_of_unknown_length_is_refused():
    def run(w, x):
        return lax.while_loop(lambda h: h[0, 0] < 1, lambda h: h @ w, x)

    with pytest.raises(ValueError, match="inside a 'while'"):
        forward_flops(run, W, X)


def test_loop_without_products_is_free():
    def run(w, x):
        return lax.while_loop(lambda h: h[0, 0] < 1, lambda h: h + 1, x) @ w

    assert forward_flops(run, W, X) == ONE


def convolution(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (1, 1), "padding": "SAME"},
        {"window_strides": (2, 2), "padding": ((0, 1), (1, 1))},
        {"window_strides": (1, 1), "padding": ((0, 0), (1, 2)), "lhs_dilation": (2, 2)},
        {"window_strides": (1, 2), "padding": "SAME", "rhs_dilation": (2, 1)},
        {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2},
    ],
)
def test_convolutions_as_xla_counts_them(options):
    x = jax.ShapeDtypeStruct((3, 7, 9, 4), jnp.float32)
    channels = 4 // options.get("feature_group_count", 1)
    kernel = jax.ShapeDtypeStruct((3, 3, channels, 6), jnp.float32)

    def run(x, kernel):
        return convolution(x, kernel, **options)

    assert forward_flops(run, x, kernel) == jax.jit(run).lower(x, kernel).cost_analysis()["flops"]


def test_convolution_behind_a_learned_layer():
    x, w = jnp.zeros((2, 5, 5, 3)), jnp.zeros((1, 1, 3, 3))
    kernel = jnp.zeros((1, 1, 3, 4))

    def loss(w, kernel, x):
        same = {"window_strides": (1, 1), "padding": "SAME"}
        return jnp.sum(convolution(convolution(x, w, **same), kernel, **same))

    rows = 2 * 2 * 5 * 5
    assert least_training_flops(loss, 0, w, kernel, x) == 2 * rows * 3 * 3 + 2 * rows * 3 * 4


def test_xla_needs_as_much_for_the_gradient_of_a_network_of_big_products():
    rows, width, rank = 256, 256, 16
    shape = jax.ShapeDtypeStruct

    def loss(lora, frozen, x):
        for w in frozen:
            h = x @ w + (x @ lora["down"]) @ lora["up"]
            x = h * lax.dot(jnp.tanh(h), w)
        return jnp.mean(jnp.square(x))

    args = (
        {"down": shape((width, rank), jnp.float32), "up": shape((rank, width), jnp.float32)},
        [shape((width, width), jnp.float32)] * 3,
        shape((rows, width), jnp.float32),
    )
    least = least_training_flops(loss, 0, *args)
    found = jax.jit(jax.value_and_grad(loss)).lower(*args).compile().cost_analysis()["flops"]
    np.testing.assert_allclose(least, found, rtol=0.04)
    assert least < found
