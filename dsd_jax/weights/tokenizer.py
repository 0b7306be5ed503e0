"""The CLIP tokenizer of a model's folder."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dsd_jax.errors import UserError
from dsd_jax.json_file import read_json, write_json

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_FORMS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def read_tokenizer(folder: Path) -> "CLIPTokenizer":
    """Loads `folder`, which pads as its own files say (SD 1.x with the end token, SD 2.x with `!`).

    `UserError` where a file is missing or damaged.
    """
    if not any(all((folder / name).is_file() for name in form) for form in _FORMS):
        raise UserError(
            f"{folder} is not a tokenizer: expected vocab.json and merges.txt, or tokenizer.json."
        )
    with _no_advice():
        from transformers import CLIPTokenizer

        try:
            return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # whatever its Rust core and its JSON readers raise
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"{folder} is not a CLIP tokenizer that can be read: {reason}."
            ) from error


def write_tokenizer(tokenizer: "CLIPTokenizer", folder: Path) -> None:
    """Writes the four files of CLIP tokenizers on the Hub, which every transformers reads.

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
    for trace in ("backend", "is_local", "local_files_only"):  # of how this one was loaded
        settings.pop(trace, None)
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", dict(tokenizer.special_tokens_map))


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Keeps transformers from telling, on import, that PyTorch is absent: we don't want it."""
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
