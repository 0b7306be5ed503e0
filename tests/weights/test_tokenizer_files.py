"""The tokenizer of a folder: as the goldens have it, written so that it reads back the same."""

import json
import os
import subprocess
import sys

import pytest

from dsd_jax.errors import UserError
from dsd_jax.weights.tokenizer_files import read_tokenizer, write_tokenizer
from tests.conftest import GOLDENS

FAMILIES = {"tiny-sd15": "sd1", "tiny-sd21": "sd2"}


def encode(tokenizer, strings):
    options = {"padding": "max_length", "max_length": 77, "truncation": True}
    return [tokenizer(string, **options)["input_ids"] for string in strings]


@pytest.mark.parametrize("name", FAMILIES)
def test_goldens(golden_folder, name):
    golden = json.loads((GOLDENS / "tokenizer_golden.json").read_text())
    tokenizer = read_tokenizer(golden_folder(name) / "tokenizer")
    expected = golden["transformers_5_23"][FAMILIES[name]]
    assert encode(tokenizer, golden["strings"]) == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_written_and_read_again(golden_folder, tmp_path, name):
    strings = json.loads((GOLDENS / "tokenizer_golden.json").read_text())["strings"]
    tokenizer = read_tokenizer(golden_folder(name) / "tokenizer")
    write_tokenizer(tokenizer, tmp_path / "tokenizer")
    assert {file.name for file in (tmp_path / "tokenizer").iterdir()} == {
        "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    }  # fmt: skip
    again = read_tokenizer(tmp_path / "tokenizer")
    assert encode(again, strings) == encode(tokenizer, strings)
    assert again.pad_token == tokenizer.pad_token
    assert again.model_max_length == 77


def test_tokenizer_json_alone(golden_folder, tmp_path):
    tokenizer = read_tokenizer(golden_folder("tiny-sd21") / "tokenizer")
    tokenizer.save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.json").exists()
    again = read_tokenizer(tmp_path)
    assert encode(again, ["a cat!"]) == encode(tokenizer, ["a cat!"])


@pytest.mark.parametrize("missing", ["vocab.json", "merges.txt"])
def test_missing_file(folder, missing):
    (folder.path / "tokenizer" / missing).unlink()
    with pytest.raises(UserError, match="is not a tokenizer: expected vocab.json and merges.txt"):
        read_tokenizer(folder.path / "tokenizer")


@pytest.mark.parametrize("number", [2**31, 908, 5])
def test_tokens_are_numbered_without_gaps(folder, number):
    file = folder.path / "tokenizer" / "vocab.json"
    vocabulary = json.loads(file.read_text())
    vocabulary["cat</w>"] = number
    file.write_text(json.dumps(vocabulary))
    with pytest.raises(UserError, match="tokens up to .*, each once; use the vocabulary"):
        read_tokenizer(file.parent)


@pytest.mark.parametrize("length", ["77", 2, 77.5, True, -1])
def test_captions_have_a_length(folder, length):
    file = folder.path / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": length}))
    with pytest.raises(UserError, match=r"model_max_length is .*, expected a whole number of 3"):
        read_tokenizer(file.parent)


@pytest.mark.parametrize("content", ["{", "[1, 2]", "version https://git-lfs.github.com/spec/v1"])
@pytest.mark.parametrize("file", ["vocab.json", "tokenizer_config.json"])
def test_damaged_file(folder, file, content):
    (folder.path / "tokenizer" / file).write_text(content)
    with pytest.raises(UserError) as error:
        read_tokenizer(folder.path / "tokenizer")
    text = str(error.value)
    assert "tokenizer" in text and "\n" not in text and text.endswith(".")


def test_merges_cut_short(folder):
    file = folder.path / "tokenizer" / "merges.txt"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:50]), encoding="utf-8")
    with pytest.raises(UserError, match=r"/tokenizer: \d+ tokens of the vocabulary are made by no"):
        read_tokenizer(folder.path / "tokenizer")


def test_vocabulary_of_another_model(folder):
    file = folder.path / "tokenizer" / "vocab.json"
    vocabulary = json.loads(file.read_text(encoding="utf-8"))
    dropped = [token for token in vocabulary if len(token) > 6 and "|" not in token][0]
    del vocabulary[dropped]
    file.write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(UserError, match="tokenizer"):
        read_tokenizer(folder.path / "tokenizer")


@pytest.mark.parametrize("role", ["pad_token", "eos_token", "bos_token"])
def test_a_special_token_is_null(folder, role):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = folder.path / "tokenizer" / name
        settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps(settings | {role: None}), encoding="utf-8")
    with pytest.raises(UserError, match=f"/tokenizer: {role} is null, expected a token of its vo"):
        read_tokenizer(folder.path / "tokenizer")


def test_no_advice_to_install_pytorch(golden_folder):
    program = (
        "import importlib.util, os, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'torch' else find(n, *a)\n"
        "from dsd_jax.weights.tokenizer_files import read_tokenizer\n"
        "from pathlib import Path\n"
        "read_tokenizer(Path(sys.argv[1]))\n"
        "import transformers\n"
        "assert not transformers.is_torch_available()\n"
        "print(os.environ.get('TRANSFORMERS_NO_ADVISORY_WARNINGS'))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRANSFORMERS")}
    done = subprocess.run(
        [sys.executable, "-c", program, golden_folder("tiny-sd15") / "tokenizer"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() == "None"
    assert "PyTorch was not found" not in done.stderr
