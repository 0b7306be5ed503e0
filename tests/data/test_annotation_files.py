import pickle
from pathlib import Path

import pytest

from dsd_jax.data.annotation_files import (
    AnyText,
    Digits,
    FileRow,
    ImagePath,
    Name,
    Number,
    Pixels,
    Text,
    parse_rows,
    read_csv,
    read_json,
    read_json_lines,
    read_pickle,
)
from dsd_jax.errors import UserError
from dsd_jax.io.validation import List


def written(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_with_marks_quotes_and_odd_line_ends(tmp_path):
    text = '\ufeffa,b\r\n"x, ""y""\u2028z",1\r\n\r\n5\' 3" tall,2\r\n'
    rows = read_csv(written(tmp_path, text), ("a", "b"))
    assert rows == [
        (2, {"a": 'x, "y"\u2028z', "b": "1"}),
        (4, {"a": "5' 3\" tall", "b": "2"}),
    ]
    assert read_csv(written(tmp_path, "a,,\r1,,\r"), ("a",)) == [(2, {"a": "1", "": ""})]


TEN = "".join(f"{i}.jpg,caption {i}\n" for i in range(10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,2\n", "has no column b; its columns are a, c"),
        ("", "has no column a, b; its columns are"),
        ("a,b\n", "holds no items"),
        ("a,b\n1,2\n3\n", "x, line 3: 1 fields, expected 2"),
        ("a,b\n1,2,3\n", "x, line 2: 3 fields, expected 2"),
        (b"a,b\n\xff,2\n", "is not text in UTF-8"),
        (f'a,b\n1,2\n3,"a lone quote\n{TEN}', "x, line 3: a quote that begins there is not"),
        (f'a,b\n3,"a lone one\n{TEN}1,"2', "x, line 2: a quote that begins there is not"),
        (f'a,b\n1,2\n3,"closed late\n{TEN}1,2"\n', "x, line 3: .* goes on in line 4"),
        ('a,b\n\n1,"two\r\nlines"\n', "x, line 3: .* goes on in line 4"),
        ('a,b\n1,"two\rlines"\n', "x, line 2: .* goes on in line 3"),
        ('"a\n",b\n1,2\n', "x, line 1: .* goes on in line 2"),
        ('a,b\n1,"2" 3\n', "x, line 2: a quote that begins there is not closed as csv"),
        (f'a,b\n1,2\n3,"{"x" * 200_000}\n', "x, line 3: .*field larger than field limit"),
        ('a,b\n1,"a \\"cat\\" here"\n', "x, line 2: a quote after a backslash; .* twice"),
        ('a,b\n1,2\n1,a \\"cat\n', "x, line 3: a quote after a backslash"),
        ("a,b,a\n1,2,3\n", "has two columns a; rename or delete one"),
        ("a,b,c,c\n1,2,3,4\n", "has two columns c"),
    ],
)
def test_csv_that_is_not_as_it_should_be(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_csv(written(tmp_path, text), ("a", "b"))


def test_json_and_json_lines(tmp_path):
    assert read_json(written(tmp_path, '{"a": [1]}')) == {"a": [1]}
    assert read_json_lines(written(tmp_path, '{"a": "x\u2028y"}\n\n[2]\n')) == [
        (1, {"a": "x\u2028y"}),
        (3, [2]),
    ]
    with pytest.raises(UserError, match="x is not JSON: "):
        read_json(written(tmp_path, '{"a": '))
    with pytest.raises(UserError, match="x, line 3 is not JSON: "):
        read_json_lines(written(tmp_path, '{"a": 1}\n\n{"a"\n'))
    with pytest.raises(UserError, match="x, line 2 is not JSON: field 'a' is there twice"):
        read_json_lines(written(tmp_path, '{"a": 1}\n{"a": 1, "a": 2}'))
    with pytest.raises(UserError, match="holds no items"):
        read_json_lines(written(tmp_path, "\n"))
    with pytest.raises(UserError, match="nothing is missing"):
        read_json(tmp_path / "nothing")
    for deep in (200, 100_000):
        with pytest.raises(UserError, match="x, line 1 is nested too deep"):
            read_json_lines(written(tmp_path, "[" * deep + "]" * deep))
    with pytest.raises(UserError, match="x is not JSON: Exceeds the limit"):
        read_json(written(tmp_path, "9" * 5000))


class Everything(FileRow):
    text: Text = "a"
    image: ImagePath = "a"
    digits: Digits = "1"
    number: Number = 1
    length: Pixels = 1
    name: Name = "a"
    several: List[Text] = ()
    may_be_empty: AnyText = ""


@pytest.mark.parametrize("field", ["text", "image", "digits", "number", "length", "name"])
@pytest.mark.parametrize("value", [[1], {"a": 1}, True, 1.5j, "a\ud83d", [[]], float("nan")])
def test_values_of_another_kind_are_named_with_file_row_and_field(field, value):
    rows = [(7, {}), (8, {field: value})]
    with pytest.raises(UserError, match=rf"^f\.json, entry 8: {field} is .*, expected"):
        list(parse_rows(Everything, rows, Path("f.json")))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("text", "image", "digits") for value in (7, None, "", " ")),
        *(("digits", value) for value in ("12.0", "-1", "\u0663", "\u00b2", "1e3", "9" * 16)),
        *(("number", value) for value in ("7", 7.0, -1, 10**15, None)),
        *(("length", value) for value in ("7", float("inf"), -float("inf"), 1e7, None)),
        *(("image", value) for value in ("a\0b", "a\nb", "a\rb")),
        *(("several", value) for value in ("a", {"a": 1}, 5, None)),
        ("name", 2.5),
        ("text", "x" * 10**6 + "x"),
    ],
)
def test_values_that_mean_nothing_are_named(field, value):
    with pytest.raises(UserError, match=rf"^f\.json, line 3: {field} is .*, expected"):
        list(parse_rows(Everything, [(3, {field: value})], Path("f.json"), "line"))


def test_values_that_are_as_they_should_be():
    rows = [
        {
            "text": " \u00e9",
            "image": "a/b c.jpg",
            "digits": "007",
            "number": 0,
            "length": -3,
            "z": 1,
        },
        {"name": 0, "several": ["a", "b"], "may_be_empty": "", "length": 2.5},
        {"name": None},
        {"name": ""},
    ]
    first, second, *others = parse_rows(Everything, enumerate(rows), Path("f"))
    assert (first.text, first.digits, first.number, first.length) == (" \u00e9", "007", 0, -3)
    assert (second.name, second.several, second.length) == ("0", ("a", "b"), 2.5)
    assert [other.name for other in others] == ["all", "all"]


class Malicious:
    """An object whose pickle asks for a file to be made when it is read."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (str(self.victim), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(tmp_path, protocol):
    content = [{"a": [1, 2.5, None, True], "ü": ("b", 2**70)}]
    (tmp_path / "x.p").write_bytes(pickle.dumps(content, protocol))
    assert read_pickle(tmp_path / "x.p") == content


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_pickle_is_executed(tmp_path, protocol):
    victim = tmp_path / "victim"
    content = pickle.dumps([{"refs": Malicious(victim)}], protocol)
    pickle.loads(content)[0]["refs"].close()
    assert victim.exists()  # the pickle does its work where it is trusted
    victim.unlink()
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(UserError, match=r"refs.p is no pickle of plain .*it asks for \S+open\)"):
        read_pickle(tmp_path / "refs.p")
    assert not victim.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps(list(range(99)))[:-9]])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "x.p").write_bytes(content)
    with pytest.raises(UserError, match="x.p is no pickle of plain lists and texts"):
        read_pickle(tmp_path / "x.p")


def test_what_lies_outside_the_file_is_refused(tmp_path):
    (tmp_path / "x.p").write_bytes(b"Pelsewhere\n.")
    with pytest.raises(UserError, match="it refers to elsewhere"):
        read_pickle(tmp_path / "x.p")
