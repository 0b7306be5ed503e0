import pytest

from dsd_jax.data.tables import fields, read_csv, read_json, read_json_lines
from dsd_jax.errors import UserError


def written(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_with_marks_quotes_and_odd_line_ends(tmp_path):
    text = '\ufeffa,b\r\n"x, ""y""\u2028z",1\r\n"two\nlines",2\r\n'
    rows = read_csv(written(tmp_path, text), ("a", "b"))
    assert rows == [{"a": 'x, "y"\u2028z', "b": "1"}, {"a": "two\nlines", "b": "2"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,2\n", "has no column b; its columns are a, c"),
        ("", "has no column a, b; its columns are"),
        ("a,b\n", "holds no items"),
        ("a,b\n1,2\n3\n", "x, line 3: expected 2 fields"),
        ("a,b\n1,2,3\n", "x, line 2: expected 2 fields"),
        (b"a,b\n\xff,2\n", "is not text in UTF-8"),
    ],
)
def test_csv_that_is_not_as_it_should_be(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_csv(written(tmp_path, text), ("a", "b"))


def test_json_and_json_lines(tmp_path):
    assert read_json(written(tmp_path, '{"a": [1]}')) == {"a": [1]}
    assert read_json_lines(written(tmp_path, '{"a": "x\u2028y"}\n\n[2]\n')) == [
        {"a": "x\u2028y"},
        [2],
    ]
    with pytest.raises(UserError, match="x is not valid JSON .*get it again"):
        read_json(written(tmp_path, '{"a": '))
    with pytest.raises(UserError, match="x, line 3 is not valid JSON"):
        read_json_lines(written(tmp_path, '{"a": 1}\n\n{"a"\n'))
    with pytest.raises(UserError, match="holds no items"):
        read_json_lines(written(tmp_path, "\n"))
    with pytest.raises(UserError, match="nothing cannot be read"):
        read_json(tmp_path / "nothing")


def test_fields(tmp_path):
    assert fields(tmp_path, "entry 1", {"a": 1, "b": None, "c": 3}, ("b", "a")) == [None, 1]
    with pytest.raises(UserError, match="entry 1: no field b; is it the right file"):
        fields(tmp_path, "entry 1", {"a": 1}, ("a", "b"))
    with pytest.raises(UserError, match="no field a"):
        fields(tmp_path, "entry 1", "a", ("a",))
