"""Encoders: each distinct image and caption is encoded once, and kept in memory or on disk."""

import numpy as np
import pytest

from dsd_jax.benchmarks import encoding, encoding_cache
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.benchmarks.encoding_cache import MemoryCache
from dsd_jax.data.examples import Examples
from tests.few_shots import examples, few_model, pictures


@pytest.fixture(scope="module")
def model():
    return few_model()


def counting(calls):
    def compute(keys):
        calls.append(list(keys))
        return (np.array([[float(key), 1.0] for key in keys]),)

    return compute


def test_each_different_key_is_computed_once():
    memory, calls = MemoryCache(), []
    (rows,) = memory.rows([3, 5, 3], counting(calls))
    np.testing.assert_array_equal(rows[:, 0], [3, 5, 3])
    (rows,) = memory.rows([7, 5], counting(calls))
    np.testing.assert_array_equal(rows[:, 0], [7, 5])
    assert calls == [[3, 5], [7]]


def test_the_oldest_is_forgotten_beyond_the_budget(monkeypatch):
    monkeypatch.setattr(encoding_cache, "MEMORY_BUDGET", 3 * 16)
    memory, calls = MemoryCache(), []
    for keys in ([1, 2], [3, 4], [4, 1], [1]):
        memory.rows(keys, counting(calls))
    assert calls == [[1, 2], [3, 4], [1]]


def test_images_are_read_a_few_at_a_time(model, monkeypatch):
    """Latents have the order of the keys, however many images are read at a time."""
    monkeypatch.setattr(encoding, "READ_TOGETHER", 3)
    images, read = pictures(), []

    def images_of(self, keys, size):
        read.append(len(keys))
        return np.stack([images[key] for key in keys])

    monkeypatch.setattr(Examples, "read_images", images_of)
    keys = [(i, 0) for i in (4, 2, 4, 9, 7)]
    latents = Encoders(model).images(examples(), keys)
    assert read == [3, 1]
    expected = model.latents(images[[4, 2, 4, 9, 7], 0])
    np.testing.assert_allclose(latents, expected, rtol=0, atol=1e-5)


def test_two_splits_may_call_different_images_by_one_key(model):
    """A key means an image of its own split."""
    images, encoders = pictures(), Encoders(model)
    one, other = (examples()._replace(read=lambda key, _, of=of: images[of, 0]) for of in (0, 1))
    for source, of in ((one, 0), (other, 1), (one, 0)):
        latents = encoders.images(source, ["same key"])
        expected = model.latents(images[of][:1])
        np.testing.assert_allclose(latents, expected, rtol=0, atol=1e-5)


def test_a_folder_serves_the_next_run(model, tmp_path, monkeypatch):
    keys, words = [(1, 0), (2, 1)], ["a cat", "a dog"]
    first = Encoders(model, tmp_path)
    latents = first.images(examples(), keys)
    texts = first.captions(words)
    second = Encoders(model, tmp_path)
    monkeypatch.setattr(Encoders, "_latents", lambda *_: pytest.fail("encoding again"))
    monkeypatch.setattr(type(model), "encode_captions", None)
    again = second.images(examples(), keys)
    np.testing.assert_array_equal(again, latents)
    found = second.captions(words)
    np.testing.assert_array_equal(found.states, texts.states)
    assert found.pooled.shape == (2, 0)
