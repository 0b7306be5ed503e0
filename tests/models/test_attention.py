"""Attention in chunks, with learned tokens, with LoRA and in 16 bits, against plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.attention import (
    CrossAttention,
    LoRADense,
    attend,
    attention_maps,
    mean_lse,
    query_lse,
    repeat_rows,
    split_heads,
)

FEATURES, HEADS, WIDTH = 8, 2, 6


def numbers(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def params(scale=1.0):
    shapes = {"to_q": FEATURES, "to_k": WIDTH, "to_v": WIDTH, "to_out_0": FEATURES}
    tree = {
        name: {"kernel": scale * numbers(size, FEATURES, seed=seed)}
        for seed, (name, size) in enumerate(shapes.items(), 10)
    }
    tree["to_out_0"]["bias"] = jnp.zeros(FEATURES)
    return {"params": tree}


def cross(hidden, states, tokens=None, upcast=False, scale=1.0, reduce=lambda x: x):
    layer = CrossAttention(HEADS, upcast, reduce, hidden.dtype)
    learned = {} if tokens is None else {"tokens": tokens}
    return layer.apply(params(scale), hidden, states, learned)


def softmax_attention(query, key, value):
    """One row and head after another, in numpy."""
    out = np.empty(query.shape)
    for b, n in np.ndindex(query.shape[0], query.shape[2]):
        logits = query[b, :, n] @ key[b, :, n].T / np.sqrt(query.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        out[b, :, n] = weights / weights.sum(-1, keepdims=True) @ value[b, :, n]
    return out


@pytest.mark.parametrize("queries", [5, 1024, 1536, 1100])
def test_attend(queries):
    """1536 goes in three chunks; 1100 is no multiple of a chunk and goes in one piece."""
    query = numbers(2, queries, HEADS, 4, seed=1)
    key, value = (3 * numbers(2, 37, HEADS, 4, seed=seed) for seed in (2, 3))
    expected = softmax_attention(*(np.asarray(x, np.float64) for x in (query, key, value)))
    np.testing.assert_allclose(attend(query, key, value), expected, rtol=0, atol=1e-5)


def test_gradient_through_chunks():
    query, key = numbers(1, 1536, 1, 4, seed=1), numbers(1, 9, 1, 4, seed=2)

    def chunked(key):
        return jnp.sum(attend(query, key, key) ** 2)

    def pieces(key):
        return sum(jnp.sum(attend(part, key, key) ** 2) for part in jnp.split(query, 2, axis=1))

    np.testing.assert_allclose(jax.grad(chunked)(key), jax.grad(pieces)(key), rtol=1e-4)


def test_reductions():
    logits = numbers(2, HEADS, 5, 7)
    exact = np.asarray(logits, np.float64)
    np.testing.assert_allclose(mean_lse(logits), np.log(np.exp(exact).sum(-1)).mean(-1), rtol=1e-5)
    np.testing.assert_allclose(
        query_lse(logits), np.log(np.exp(exact).sum(-1)), rtol=1e-5, atol=1e-6
    )


def test_attention_maps_count_every_head_alike():
    logits = numbers(2, HEADS, 5, 7)
    exact = np.exp(np.asarray(logits, np.float64))
    shares = exact / exact.sum(-1, keepdims=True)
    maps = attention_maps(logits)
    assert maps.shape == (2, 7, 5)
    np.testing.assert_allclose(maps.mean(-1), shares.mean((1, 2)), rtol=1e-5)
    contrasts = [shares[1, head, :, 3] / shares[1, head, :, 3].mean() for head in range(HEADS)]
    found = maps[1, 3] / maps[1, 3].mean()
    np.testing.assert_allclose(found, np.mean(contrasts, axis=0), rtol=1e-5)
    far = logits.at[:, :, :, 0].add(-500)  # a token to which nothing attends
    assert np.isfinite(attention_maps(far)).all()


def test_rows_repeat_side_by_side():
    x = jnp.arange(2)[:, None]
    assert repeat_rows(x, 6)[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert repeat_rows(x, 2) is x
    assert split_heads(numbers(2, 3, 8), 2).shape == (2, 3, 2, 4)


def test_scores_are_scaled_logits_of_the_rows_own_caption():
    """Two sets of three captions, each set for two latents."""
    hidden, states = numbers(12, 5, FEATURES), numbers(2, 3, 7, WIDTH, seed=1)
    _, logits = cross(hidden, states)
    assert logits.shape == (12, HEADS, 5, 7) and logits.dtype == jnp.float32
    tree = params()["params"]
    query = np.asarray(hidden @ tree["to_q"]["kernel"]).reshape(12, 5, HEADS, 4)
    key = np.asarray(states @ tree["to_k"]["kernel"]).reshape(6, 7, HEADS, 4)
    for row, caption in enumerate([0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]):
        expected = np.einsum("qnd,lnd->nql", query[row], key[caption]) / 2
        np.testing.assert_allclose(logits[row], expected, rtol=1e-4, atol=1e-5)


def test_learned_tokens():
    hidden, states = numbers(1, 5, FEATURES), numbers(1, 1, 7, WIDTH, seed=1)
    out, logits = cross(hidden, states)
    count = 3
    nothing = {name: jnp.zeros((count, FEATURES)) for name in ("key", "value")}
    diluted, more = cross(hidden, states, nothing)
    # A key of zeros has logit 0 everywhere: exp(lse) grows by one for each, and what the
    # caption's tokens contributed shrinks by the share that is left to them.
    lse = jax.nn.logsumexp(logits, -1)
    expected = jnp.logaddexp(lse, jnp.log(count))
    np.testing.assert_allclose(jax.nn.logsumexp(more, -1), expected, rtol=1e-5)
    np.testing.assert_array_equal(more[..., 7:], jnp.zeros((1, HEADS, 5, count)))
    np.testing.assert_allclose(more[..., :7], logits, rtol=1e-5, atol=1e-6)
    share = jnp.exp(lse - expected)  # (1, N, Q)
    tree = params()["params"]
    heads = np.asarray(out @ np.linalg.inv(tree["to_out_0"]["kernel"])).reshape(1, 5, HEADS, 4)
    shrunk = (heads * share.transpose(0, 2, 1)[..., None]).reshape(1, 5, FEATURES)
    np.testing.assert_allclose(diluted, shrunk @ tree["to_out_0"]["kernel"], rtol=0, atol=1e-3)


def test_tokens_are_every_captions_own():
    hidden, states = numbers(2, 5, FEATURES), numbers(2, 1, 7, WIDTH, seed=1)
    tokens = {"key": numbers(3, FEATURES, seed=2), "value": numbers(3, FEATURES, seed=3)}
    _, logits = cross(hidden, states, tokens)
    query = np.asarray(hidden @ params()["params"]["to_q"]["kernel"]).reshape(2, 5, HEADS, 4)
    key = np.asarray(tokens["key"]).reshape(3, HEADS, 4)
    expected = np.einsum("bqnd,mnd->bnqm", query, key) / 2
    np.testing.assert_allclose(logits[..., 7:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("upcast", [False, True])
def test_logits_beyond_16_bits(upcast):
    """Scores are summed in float32: products that float16 can't hold stay finite."""
    hidden = numbers(1, 5, FEATURES, dtype=jnp.float16)
    states = numbers(1, 1, 7, WIDTH, seed=1, dtype=jnp.float16)
    _, logits = cross(hidden, states, upcast=upcast, scale=100.0)
    assert np.isfinite(logits).all() and np.abs(logits).max() > 65_504


UPDATE = {"down": 0.01 * numbers(FEATURES, 2, seed=4), "up": 0.01 * numbers(2, 6, seed=5)}


def project(x, update, dtype=jnp.float32):
    weights = {"kernel": numbers(FEATURES, 6, seed=6), "bias": numbers(6, seed=7)}
    return LoRADense(6, True, dtype).apply({"params": weights}, x, update)


def test_low_rank_update_is_that_of_merged_weights():
    x = numbers(3, 5, FEATURES)
    merged = np.asarray(numbers(FEATURES, 6, seed=6)) + UPDATE["down"] @ UPDATE["up"]
    np.testing.assert_allclose(project(x, UPDATE), x @ merged + numbers(6, seed=7), atol=1e-5)
    np.testing.assert_allclose(project(x, None), project(x, UPDATE), atol=0.01)


def test_updates_too_small_for_16_bit_weights_have_a_gradient_in_float32():
    """Merged into W they would vanish: W is near 1 and has 8 bits, they are near 1e-4."""
    x = numbers(3, 5, FEATURES, dtype=jnp.bfloat16)

    def total(update, dtype):
        return jnp.sum(project(x, update, dtype).astype(jnp.float32) ** 2)

    exact, low = (jax.grad(total)(UPDATE, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    for name, gradient in low.items():
        assert gradient.dtype == jnp.float32
        error = np.linalg.norm(gradient - exact[name]) / np.linalg.norm(exact[name])
        assert 0 < error < 0.02
