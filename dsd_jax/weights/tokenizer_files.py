"""Read and write the CLIP tokenizer of a model's folder."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dsd_jax.diffusion.tokenization import WORD_END
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_json, write_json
from dsd_jax.io.terminal import shorten

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

# CLIP's choice of the tokens that every caption needs.
_SPECIAL = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|> (SD 1.x) or ! (SD 2.x)",
}
_MIN_LENGTH = 3  # tokens of a caption: its start, a word, its end
_FORMS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def read_tokenizer(folder: Path) -> "CLIPTokenizer":
    """Load a tokenizer; it pads as its files say (SD 1.x with the end token, SD 2.x with `!`).

    Raises:
        UserError: a file is missing or damaged, or they don't belong together.
    """
    if not any(all((folder / name).is_file() for name in form) for form in _FORMS):
        raise UserError(
            f"{folder} is not a tokenizer: expected vocab.json and merges.txt, or tokenizer.json."
        )
    _check_stated(folder)
    with _no_advice():
        from transformers import CLIPTokenizer

        try:
            tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # whatever its Rust core and its JSON readers raise
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"{folder} is not a CLIP tokenizer that can be read: {reason}."
            ) from error
    for role in _SPECIAL:
        _check_special(folder, role, getattr(tokenizer, f"{role}_id"))
    _check_indices(tokenizer, folder)
    _check_merges(tokenizer, folder)
    return tokenizer


def _check_stated(folder: Path) -> None:
    """Check that no special token is null in the folder's files; raises `UserError`."""
    files = [folder / name for name in ("tokenizer_config.json", "special_tokens_map.json")]
    stated = [read_json(file) for file in files if file.is_file()]
    for role in _SPECIAL:
        values = [settings[role] for settings in stated if role in settings]
        if values:
            _check_special(folder, role, next((x for x in values if x is not None), None))


def _check_special(folder: Path, role: str, value: object) -> None:
    """Check that there is a token by which captions begin, end or are filled up."""
    if value is None:
        raise UserError(
            f"{folder}: {role} is null, expected a token of its vocabulary, such as "
            f"{_SPECIAL[role]}; set it in tokenizer_config.json."
        )


def _check_indices(tokenizer: "CLIPTokenizer", folder: Path) -> None:
    """Check that tokens have consecutive indices, and that captions have a length.

    An index beyond the text encoder's table would silently be another token's, and the tokenizer's
    own code takes minutes to walk over a large gap.

    Raises:
        UserError: they don't.
    """
    indices = sorted(tokenizer.get_vocab().values())
    if indices != list(range(len(indices))):
        raise UserError(
            f"{folder} numbers its {len(indices)} tokens up to {indices[-1]}, expected 0 to "
            f"{len(indices) - 1}, each once; use the vocabulary that was published with this model."
        )
    length = tokenizer.model_max_length
    if type(length) is not int or length < _MIN_LENGTH:
        raise UserError(
            f"{folder}: model_max_length is {shorten(length)}, expected a whole number of "
            f"{_MIN_LENGTH} or more, such as 77; set it in tokenizer_config.json."
        )


def _check_merges(tokenizer: "CLIPTokenizer", folder: Path) -> None:
    """Check that merges and vocabulary belong together.

    CLIP's vocabulary consists of single letters, the results of merges, and special tokens. With
    merges missing, words would silently become other tokens.

    Raises:
        UserError: they don't.
    """
    stored = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["content"] for token in stored["added_tokens"]}
    vocabulary = set(stored["model"]["vocab"]) - added
    merged = {"".join(pair) for pair in stored["model"]["merges"]}
    longer = {token for token in vocabulary if len(token.removesuffix(WORD_END)) > 1}
    for tokens, problem in (
        (longer - merged, "of the vocabulary are made by no merge"),
        (merged - vocabulary - added, "that merges make are not in the vocabulary"),
    ):
        if tokens:
            raise UserError(
                f"{folder}: {len(tokens)} tokens {problem}, such as {min(tokens)!r}, so its files "
                "don't belong together or one was cut short; fetch all of them again."
            )


def write_tokenizer(tokenizer: "CLIPTokenizer", folder: Path) -> None:
    """Write the four files of CLIP tokenizers on the Hub, which every transformers reads.

    transformers 5 itself writes a `tokenizer.json` instead, which 4 does not read.
    """
    folder.mkdir()
    tokenizer.save_pretrained(folder)
    whole = folder / "tokenizer.json"
    bpe = read_json(whole)["model"]
    whole.unlink()
    vocabulary = json.dumps(bpe["vocab"], ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in bpe["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = read_json(folder / "tokenizer_config.json")
    for trace in ("backend", "is_local", "local_files_only"):  # how this one was loaded
        settings.pop(trace, None)
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", dict(tokenizer.special_tokens_map))


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Keep transformers from warning, on import, that PyTorch is absent."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
