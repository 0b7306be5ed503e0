import io
import json
import os
import struct
import zlib
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from dsd_jax.data.datasets import winoground
from dsd_jax.data.examples import skip_unreadable
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError

FILE = "test-00000-of-00001.parquet"


@pytest.fixture
def made(tmp_path):
    return made_folder("winoground", tmp_path)


def rows_of(folder):
    return pyarrow.parquet.read_table(folder / "data" / FILE).to_pylist()


def write(folder, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "data" / FILE)


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_two_captions_and_two_images_from_parquet(made):
    benchmark = winoground.benchmark(str(made))
    assert (benchmark.name, benchmark.splits) == ("winoground", ("all",))
    examples = benchmark.load("all")
    assert Counter(examples.kinds) == {"Object": 32, "Relation": 16}
    rows = rows_of(made)
    for number in (0, 9, 10, 37, 47):  # groups of rows are of ten
        row = rows[number]
        assert examples.captions[number] == (row["caption_0"], row["caption_1"])
        images = examples.read_images(examples.images[number], 64)
        np.testing.assert_array_equal(images[0], pixels(row["image_0"]["bytes"]))
        np.testing.assert_array_equal(images[1], pixels(row["image_1"]["bytes"]))
    assert len(set(examples.clusters)) == 48


def test_words_of_both_captions_are_the_same(made):
    examples = winoground.benchmark(str(made)).load("all")
    for (first, second), kind in zip(*examples[:1], examples.kinds, strict=True):
        same = sorted(first.replace("an ", "a ").split()) == sorted(
            second.replace("an ", "a ").split()
        )
        assert first != second and same == (kind == "Object")


def test_several_files_and_plain_bytes(made):
    rows = rows_of(made)
    for row in rows:
        row |= {f"image_{i}": row[f"image_{i}"]["bytes"] for i in (0, 1)}
    write(made, rows[:30])
    (made / "data" / FILE).rename(made / "data" / "test-00000-of-00002.parquet")
    write(made, rows[30:])
    (made / "data" / FILE).rename(made / "data" / "test-00001-of-00002.parquet")
    examples = winoground.benchmark(str(made)).load("all")
    assert [texts[0] for texts in examples.captions] == [row["caption_0"] for row in rows]
    images = examples.read_images(examples.images[40], 64)
    np.testing.assert_array_equal(images[1], pixels(rows[40]["image_1"]))
    # The folder of the files themselves is understood too.
    assert winoground.benchmark(str(made / "data")).load("all").count == 48


def test_images_beside_json_lines_as_it_came_before(made):
    lines = []
    (made / "data" / "images").mkdir()
    for row in rows_of(made):
        for i in (0, 1):
            image = row[f"image_{i}"]
            (made / "data" / "images" / image["path"]).write_bytes(image["bytes"])
            row[f"image_{i}"] = image["path"].removesuffix(".png")
        lines.append(json.dumps(row))
    expected = winoground.benchmark(str(made)).load("all")
    (made / "data" / FILE).unlink()
    (made / "data" / "examples.jsonl").write_text("\n".join(lines))
    examples = winoground.benchmark(str(made)).load("all")
    assert examples.captions == expected.captions and examples.kinds == expected.kinds
    np.testing.assert_array_equal(
        examples.read_images(examples.images[3], 64), expected.read_images(expected.images[3], 64)
    )


def test_files_that_are_not_as_they_should_be(made):
    rows = rows_of(made)
    write(made, [{k: v for k, v in row.items() if k != "collapsed_tag"} for row in rows])
    with pytest.raises(UserError, match="parquet has no column collapsed_tag"):
        winoground.benchmark(str(made)).load("all")
    write(made, [*rows[:2], rows[2] | {"caption_1": None}])
    with pytest.raises(UserError, match="parquet, row 2: caption_1 is None, expected text"):
        winoground.benchmark(str(made)).load("all")
    rows[1]["image_1"]["bytes"] = rows[1]["image_1"]["bytes"][:200]
    rows[2]["image_0"]["bytes"] = None
    write(made, rows)
    examples = winoground.benchmark(str(made)).load("all")
    with pytest.raises(UserError, match="image_1 of row 1 of .*parquet (cannot|is not)"):
        examples.read_images(examples.images[1], 64)
    with pytest.raises(UserError, match="image_0 of row 2 of .*parquet holds no image"):
        examples.read_images(examples.images[2], 64)
    (made / "data" / FILE).write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match="is no parquet file"):
        winoground.benchmark(str(made)).load("all")
    (made / "data" / FILE).unlink()
    with pytest.raises(UserError, match="lacks data/examples.jsonl or examples.jsonl, from https:"):
        winoground.benchmark(str(made)).load("all")


BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
BOMB += struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
BOMB += struct.pack(">I", zlib.crc32(BOMB[12:])) + b"\0\0\0\0IDAT" + b"\0" * 8


@pytest.mark.parametrize(
    ("content", "message"), [(BOMB, "is far too large"), (b"", "is not an image"), (b"GIF89a", "")]
)
def test_images_in_it_are_refused_as_files_are(made, capfd, content, message):
    rows = rows_of(made)[:3]
    rows[1]["image_1"]["bytes"] = content
    write(made, rows)
    examples = winoground.benchmark(str(made)).load("all")
    with pytest.raises(UserError, match=rf"image_1 of row 1 of \S+{FILE} {message}"):
        examples.read_images(examples.images[1], 64)
    assert skip_unreadable(examples, "winoground").count == 2
    assert "image_1 of row 1 of" in capfd.readouterr().err


def test_a_damaged_page_is_one_sentence(made, capfd):
    """Bytes in the middle of the file are lost, its beginning and end are as they were."""
    path = made / "data" / FILE
    content = path.read_bytes()
    columns = pyarrow.parquet.ParquetFile(path).metadata.row_group(1)
    names = {
        columns.column(i).path_in_schema: columns.column(i) for i in range(columns.num_columns)
    }
    for name, loads in (("image_0.bytes", True), ("caption_1", False)):
        start = names[name].data_page_offset
        start = min(start, names[name].dictionary_page_offset or start)
        path.write_bytes(content[:start] + b"\xff" * 64 + content[start + 64 :])
        if loads:
            examples = winoground.benchmark(str(made)).load("all")
            with pytest.raises(UserError, match=f"{FILE} is no parquet file, or damaged"):
                examples.read_images(examples.images[15], 64)
            assert skip_unreadable(examples, "winoground").count == 38
        else:
            with pytest.raises(UserError, match=f"{FILE} is no parquet file, or damaged"):
                winoground.benchmark(str(made)).load("all")


@pytest.mark.parametrize(
    ("field", "value"), [("caption_0", 7), ("caption_0", " "), ("id", None), ("collapsed_tag", 1.5)]
)
def test_values_of_other_kinds(made, field, value):
    write(made, [row | {field: value} for row in rows_of(made)[:2]])
    with pytest.raises(UserError, match=f"parquet, row 0: {field} is .*, expected text"):
        winoground.benchmark(str(made)).load("all")


def test_captions_that_are_the_same(made):
    write(made, [row | {"caption_0": "a", "caption_1": "a"} for row in rows_of(made)[:2]])
    with pytest.raises(UserError, match="parquet, row 0: has two captions that are the same, 'a'"):
        winoground.benchmark(str(made)).load("all")


def test_a_fifo_instead_of_a_table(tmp_path):
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet is no regular file"):
        winoground.benchmark(str(tmp_path)).load("all")
