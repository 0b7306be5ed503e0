import json
import re
from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPTokenizer

import dsd_jax.assets
from dsd_jax.assets.build_tokenizer import byte_symbols, caption_words, write_tokenizer
from dsd_jax.data.synthetic.scenes import allowed_pairs, caption, sample_scene

FOLDER = Path(dsd_jax.assets.__file__).parent / "tiny" / "tokenizer"


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def vocabulary():
    return json.loads((FOLDER / "vocab.json").read_text(encoding="utf-8"))


def test_layout_is_clips(tokenizer, vocabulary):
    size = len(vocabulary)
    assert 800 <= size <= 1100 and list(vocabulary.values()) == list(range(size))
    assert list(vocabulary)[-2:] == ["<|startoftext|>", "<|endoftext|>"]
    symbols = byte_symbols()
    assert len(set(symbols)) == 256 and symbols[:3] == ["!", '"', "#"]
    assert list(vocabulary)[:512] == symbols + [symbol + "</w>" for symbol in symbols]
    assert len(tokenizer) == size
    assert tokenizer.model_max_length == 77
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (size - 2, size - 1)
    assert tokenizer.pad_token_id == size - 1


def test_padding_to_77(tokenizer, vocabulary):
    ids = tokenizer(["a cat", ""], padding="max_length", truncation=True, return_tensors="np")
    ids, end = ids["input_ids"], len(vocabulary) - 1
    assert ids.shape == (2, 77)
    cat = [end - 1, vocabulary["a</w>"], vocabulary["cat</w>"], end]
    np.testing.assert_array_equal(ids[0], cat + [end] * 73)
    np.testing.assert_array_equal(ids[1], [end - 1] + [end] * 76)


def test_every_word_of_the_captions_is_one_token(tokenizer, vocabulary, sprites):
    rng, pairs = np.random.default_rng(0), allowed_pairs(len(sprites.concepts))
    words = set()
    for _ in range(1500):
        text = caption(sample_scene(rng, pairs, [0]), sprites.concepts, rng)
        words.update(text.split())
        ids = tokenizer(text)["input_ids"][1:-1]
        assert ids == [vocabulary[word + "</w>"] for word in text.split()]
    assert words == set(caption_words())


TEXTS = [
    "A CAT, an Apple!",
    "zebra photographs of 12 kittens' tails",
    "Café naïve — 日本語 😀 \N{COMBINING ACUTE ACCENT}",
    "tabs\tand\nnewlines   here",
    "don't it's we'll <b>",
    bytes(range(32, 127)).decode(),
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_encodes_as_byte_pair_encoding_says(text, tokenizer, vocabulary):
    ids = tokenizer(text)["input_ids"][1:-1]
    assert ids == [vocabulary[symbol] for symbol in encode(text)]
    assert len(vocabulary) - 1 not in ids  # nothing is unknown


def encode(text):
    """Encode byte pairs as CLIP's authors wrote it, from the two files alone."""
    import unicodedata

    merges = (FOLDER / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    ranks = {tuple(line.split()): i for i, line in enumerate(merges)}
    order = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    order += [byte for byte in range(256) if byte not in order]
    symbol_of = dict(zip(order, byte_symbols(), strict=True))
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
    words = re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", text)
    for word in words:
        parts = [symbol_of[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:], strict=False))
            best = min(pairs, key=lambda pair: ranks.get(pair, np.inf))
            if best not in ranks:
                break
            i = pairs.index(best)
            parts[i : i + 2] = ["".join(best)]
        yield from parts


def test_script_writes_the_shipped_files(tmp_path):
    write_tokenizer(tmp_path)
    assert {path.name for path in FOLDER.iterdir()} == {path.name for path in tmp_path.iterdir()}
    for path in FOLDER.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
