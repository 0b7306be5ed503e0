"""Tokenization: captions to token ids."""

import copy
import io
import logging

import numpy as np
import pytest

from dsd_jax.diffusion.tokenization import check_captions, check_texts, tokenize, tokenizer_digest
from dsd_jax.errors import UserError
from tests.random_model import random_model


@pytest.fixture(scope="module")
def tokenizer():
    return random_model().tokenizer


def test_begin_words_end_padding(tokenizer):
    ids = tokenize(tokenizer, ["a cat", ""])
    assert ids.shape == (2, 77) and ids.dtype == np.int32
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    words = tokenizer.convert_tokens_to_ids(["a</w>", "cat</w>"])
    assert ids[0].tolist() == [begin, *words, end] + [tokenizer.pad_token_id] * 73
    assert ids[1].tolist() == [begin, end] + [tokenizer.pad_token_id] * 75


def test_as_transformers_does(tokenizer):
    captions = ["a red apple above a tree", "Two  CATS!", "é"]
    options = {"padding": "max_length", "max_length": 77, "truncation": True}
    np.testing.assert_array_equal(
        tokenize(tokenizer, captions), tokenizer(captions, **options)["input_ids"]
    )


@pytest.mark.parametrize("name", ["<|endoftext|>", "<|startoftext|>"])
def test_special_tokens_in_captions_are_text(tokenizer, name):
    """Text after the name of a special token is kept; other captions are not changed."""
    alone, quoted, other = tokenize(tokenizer, [name, f"a {name} cat", "a cat!"])
    np.testing.assert_array_equal(other, tokenize(tokenizer, ["a cat!"])[0])
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    for ids, text in ((alone, name), (quoted, f"a {name} cat")):
        words = [int(i) for i in ids[1 : ids.tolist().index(tokenizer.eos_token_id)]]
        assert words and not special & set(words)
        assert tokenizer.decode(words).replace(" ", "") == text.replace(" ", "")


@pytest.fixture
def transformers_log():
    """The log of transformers, which does not go through `warnings`."""
    handler = logging.StreamHandler(io.StringIO())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield handler.stream
    logger.removeHandler(handler)


def test_long_caption_is_cut_and_the_warning_shows_what_was_lost(tokenizer, transformers_log):
    fits = " ".join(["cat"] * 75)
    with pytest.warns(UserWarning, match=r"has 79 tokens, of which the model reads 77") as caught:
        ids = tokenize(tokenizer, [fits, fits + " red tree"])
    assert len(caught) == 1
    assert str(caught[0].message).endswith("cut off: 'red tree'")
    assert "indexing errors" not in transformers_log.getvalue()  # which nothing here would meet
    np.testing.assert_array_equal(ids[0], ids[1])
    assert ids[1, -1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([], "no caption given"),
        (["a cat", ""], "caption 2 is empty; say what the image should show"),
        (["  \n"], "caption 1 is empty"),
        (["a cat", "caf\udce9"], r"caption 2, 'caf\\udce9', has bytes that are no UTF-8"),
        (["a cat", None], "caption 2 is a NoneType; expected a string"),
    ],
)
def test_captions_that_say_nothing(captions, message):
    with pytest.raises(UserError, match=message):
        check_captions(captions)


def test_captions_as_a_list():
    assert check_captions("a cat") == ["a cat"]
    assert check_captions(("a", "b")) == ["a", "b"]


def test_texts_may_be_empty_but_not_missing():
    assert check_texts(["", "a"]) == ["", "a"] and check_texts("a") == ["a"]
    with pytest.raises(UserError, match="no caption given"):
        check_texts([])


def test_no_caption_to_encode():
    with pytest.raises(UserError, match="no caption given; expected at least one"):
        random_model().encode_texts([])


def test_a_tokenizers_digest(tokenizer):
    before = tokenizer_digest(tokenizer)
    shorter = copy.deepcopy(tokenizer)
    shorter.model_max_length = 20
    assert tokenizer_digest(shorter) != before == tokenizer_digest(copy.deepcopy(tokenizer))
