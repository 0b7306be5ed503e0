"""Whole files from outside: regular ones of limited size, and JSON in them."""

import os
import re

import pytest

from dsd_jax.errors import UserError
from dsd_jax.io.json_file import read_json
from dsd_jax.io.regular_file import read_regular_file


def make(path, kind):
    """Put something of a kind where a file is expected."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "large":
        path.write_bytes(b"12345")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("fifo", "is no regular file; expected a file"),
        ("folder", "is a folder; expected a file"),
        ("missing", "is missing"),
        ("dangling", "is missing, a link to nowhere, which is not there"),
        ("loop", "can't be read"),
        ("large", "has 5 bytes; expected at most 4"),
    ],
)
def test_what_is_no_regular_file_is_said_at_once(tmp_path, kind, sentence):
    make(tmp_path / "x", kind)
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_regular_file(tmp_path / "x", most=4)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1]", "holds a list, expected a JSON object"),
        ('{"a": NaN}', "NaN is no number in JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "nested too deep"),
        ('{"a": 1', "is not JSON"),
        ("version https://git-lfs.github.com/spec/v1", "is a git-lfs pointer"),
    ],
)
def test_what_is_no_json_object_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(sentence)) as raised:
        read_json(tmp_path / "x.json")
    assert len(str(raised.value)) < 500


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}
