"""Annotations, tables, images and class folders: items that are right, or one sentence."""

import io
import json
import pickle
import shutil

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from dsd_jax.data.datasets import (
    classification,
    compositional,
    comvg,
    custom,
    refcocog,
    vqa,
    winoground,
)
from dsd_jax.data.datasets.custom import FILES
from dsd_jax.data.small_sets import made_folder
from dsd_jax.io.images import open_image
from tests.mutations.mutate import count, dumped, garbled, generator, mutated

COUNT = count(8)
PARQUET = "data/test-00000-of-00001.parquet"


def few(content):
    """Return the content with short lists, so that changes hit all sorts of values."""
    if isinstance(content, dict):
        return {key: few(value) for key, value in content.items()}
    return content[:30] if isinstance(content, list) else content


JSON = {
    "sugarcrepe": ("swap_att.json", lambda f: compositional.benchmark(f, "sugarcrepe"), "swap_att"),
    "own": ("captions.jsonl", custom.benchmark, "all"),
    "own drawn": (
        "captions.jsonl",
        lambda f: custom.benchmark(f, wrong="captions", candidates=2),
        "all",
    ),
    "vqa questions": (
        "v2_OpenEnded_mscoco_val2014_questions.json",
        lambda f: vqa.benchmark(f, candidates=2),
        "val/binary",
    ),
    "vqa annotations": (
        "v2_mscoco_val2014_annotations.json",
        lambda f: vqa.benchmark(f, candidates=2),
        "val/other",
    ),
    "refcocog": ("refs(umd).p", lambda f: refcocog.benchmark(f, candidates=2), "all"),
    "refcocog instances": ("instances.json", lambda f: refcocog.benchmark(f, candidates=2), "val"),
    "winoground": (PARQUET, winoground.benchmark, "all"),
}


def read(path):
    if path.suffix == ".p":
        return pickle.loads(path.read_bytes())
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    text = path.read_text()
    lines = path.suffix == ".jsonl"
    return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)


def write(path, content):
    """Write the content, or return False where its kind of file can't hold it."""
    if path.suffix == ".parquet":
        try:
            table = pyarrow.Table.from_pylist(content)
            pyarrow.parquet.write_table(table, path)
        except (pyarrow.ArrowException, AttributeError, TypeError, OverflowError, ValueError):
            return False
    elif path.suffix == ".p":
        path.write_bytes(pickle.dumps(content, 2))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(dumped, content)))
    else:
        path.write_text(dumped(content))
    return True


def check(examples):
    """Check what every reader promises."""
    assert examples.count
    shapes = {(len(c), len(p)) for c, p in zip(examples.captions, examples.images, strict=True)}
    assert len(shapes) == 1
    for captions in examples.captions:
        assert all(isinstance(text, str) and text.strip() for text in captions)
        "".join(captions).encode()  # no lone surrogates
    for kind in examples.kinds:
        assert isinstance(kind, str) and kind.encode()


@pytest.mark.parametrize("name", JSON)
def test_values_in_annotations(name, tmp_path, tried):
    file, benchmark, split = JSON[name]
    folder = made_folder(name.split()[0], tmp_path)
    content = few(read(folder / file))
    rng = generator(name)
    taken = 0
    for _ in range(COUNT):
        if not write(folder / file, mutated(rng, content)):
            continue
        examples = tried(lambda: benchmark(str(folder)).load(split))
        if examples is not None:
            taken += 1
            check(examples)
    assert taken < COUNT  # changes are seen


TABLES = {
    "comvg": (comvg.CSV, comvg.benchmark, "all"),
    "vqa": ("vqa_text_test.csv", lambda f: vqa.benchmark(f, "authors"), "test/other"),
    "vqa lines": ("test.txt", lambda f: vqa.benchmark(f, "authors", candidates=2), "test/binary"),
    "own": ("captions.csv", custom.benchmark, "all"),
    "own lines": ("captions.jsonl", custom.benchmark, "all"),
}


@pytest.mark.parametrize("name", TABLES)
def test_bytes_of_tables(name, tmp_path, tried):
    file, benchmark, split = TABLES[name]
    folder = made_folder(name.split()[0], tmp_path)
    if name == "own":
        lines = [json.loads(line) for line in (folder / FILES[0]).read_text().splitlines()]
        (folder / FILES[0]).unlink()
        rows = [f"{x['image']},{x['caption']},{x['wrong_captions'][0]}" for x in lines]
        (folder / file).write_text("\n".join(["image,caption,wrong_caption_1", *rows]))
    content = (folder / file).read_bytes()
    rng = generator(name)
    for _ in range(COUNT):
        text = garbled(rng, content)
        (folder / file).write_bytes(text)
        examples = tried(lambda: benchmark(str(folder)).load(split))
        if examples is None:
            continue
        assert examples.count and all(map(str.strip, (c[0] for c in examples.captions)))
        if file.endswith(".csv"):  # no row swallows another one
            table = text.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
            assert examples.count == len([x for x in table.split("\n") if x]) - 1


@pytest.fixture(scope="module")
def pictures():
    """Files of several formats, with and without metadata."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    kinds = {
        "png": {"exif": exif, "pnginfo": None},
        "jpeg": {"exif": exif, "comment": b"hello"},
        "gif": {},
        "webp": {"exif": exif},
        "bmp": {},
        "tiff": {"exif": exif},
    }
    files = []
    for kind, options in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 4096, (24, 24)).astype(np.uint16)).save(buffer, "png")
    return [*files, buffer.getvalue()]


def test_bytes_of_images(pictures, tmp_path, capsys, tried):
    rng = generator("pictures")
    for i in range(4 * COUNT):
        content = bytearray(pictures[i % len(pictures)])
        for _ in range(rng.choice((1, 3))):
            content[rng.randrange(len(content))] = rng.choice((0, 255, rng.randrange(256)))
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        (tmp_path / "a.png").write_bytes(content)
        image = tried(lambda: open_image(tmp_path / "a.png"))
        assert image is None or image.mode == "RGB"
        capsys.readouterr()


NAMES = ["cat", ".cat", "@eaDir", "{}", "a\tb", "\u00e9", "e\u0301", "a" * 200, "train", " ", "\\"]
ENDS = ["jpg", "JFIF", "heic", "txt", "", "png/x.png"]


def test_folders_of_classes(tmp_path, tried):
    rng = generator("classes")
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "png")
    for i in range(COUNT):
        root = tmp_path / str(i)
        root.mkdir()
        for _ in range(rng.randrange(8)):
            path = root / rng.choice(NAMES) / f"{rng.choice(NAMES)}.{rng.choice(ENDS)}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
        benchmark = classification.benchmark(str(root))
        for split in benchmark.splits:
            examples = tried(lambda b=benchmark, s=split: b.load(s))
            if examples is not None:
                keys = [key for (key,) in examples.images]
                assert len(examples.read_images(keys, 16)) == examples.count
                assert not any(key.startswith(".") or "/." in key for key in keys)
        shutil.rmtree(root)
