"""Rebuild the bundled model's tokenizer: `python -m dsd_jax.assets.build_tokenizer --out DIR`.

The script writes a byte-pair vocabulary in CLIP's file format: any text encodes, and each word
that captions of the scenes can hold is one token. The same words give the same files.
"""

import argparse
import collections
import itertools
import json
import pathlib

from dsd_jax.data.synthetic.scenes import COLOR_NAMES, RELATIONS, SIZE_WORDS
from dsd_jax.data.synthetic.sprites import load_sprites

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
MAX_LENGTH = 77


def caption_words() -> list[str]:
    """Return all words of the captions' grammar and of the concepts' names, sorted."""
    phrases = ["a an", "on background", *SIZE_WORDS, *RELATIONS, *COLOR_NAMES]
    phrases += load_sprites().concepts
    return sorted(set(" ".join(phrases).split()))


def byte_symbols() -> list[str]:
    """Return the printable character of each byte, in the order of CLIP's vocabulary."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(hidden))]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Return byte-pair merges, the most frequent neighbors first, until each word is one symbol.

    Encoding applies merges in this order, so that each of `words` becomes one token. Ties go to the
    pair that sorts first.
    """
    parts = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges = []
    while any(len(part) > 1 for part in parts):
        counts = collections.Counter(pair for part in parts for pair in itertools.pairwise(part))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        parts = [merge(part, best) for part in parts]
    return merges


def merge(part: list[str], pair: tuple[str, str]) -> list[str]:
    """Join each occurrence of `pair` in `part`, from the left, into one symbol."""
    joined = []
    for symbol in part:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def write_tokenizer(out: pathlib.Path) -> None:
    """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json."""
    merges = learn_merges(caption_words())
    symbols = byte_symbols()
    tokens = symbols + [symbol + END_OF_WORD for symbol in symbols]
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens += [START, END]
    special = {
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    config = {
        **special,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": MAX_LENGTH,
        "tokenizer_class": "CLIPTokenizer",
    }
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (out / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (out / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")


def main() -> None:
    """Read the flags and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    write_tokenizer(parser.parse_args().out)


if __name__ == "__main__":
    main()
