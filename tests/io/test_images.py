"""Reading images: every kind comes out right, and a file that is none is refused by name."""

import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsd_jax.errors import UserError
from dsd_jax.io.images import FITS, OWN_SIZE, open_image, read_image, read_images

RED, WHITE = (255, 0, 0), (255, 255, 255)


def noise(height: int = 20, width: int = 30, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def test_path_image_and_array_are_the_same(tmp_path):
    pixels = noise()
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    expected = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))
    for image in (path, str(path), Image.fromarray(pixels), pixels):
        found = read_image(image, 16)
        assert (found.dtype, found.shape) == (np.uint8, (16, 16, 3))
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_images([path, pixels], 16), np.stack([expected] * 2))


def test_own_size_is_untouched():
    np.testing.assert_array_equal(read_image(noise(16, 16), 16), noise(16, 16))


@pytest.mark.parametrize("fit", FITS)
def test_in_place_of_a_size_the_image_as_it_is(fit):
    image = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    np.testing.assert_array_equal(read_image(image, OWN_SIZE, fit), image)


def test_the_input_is_not_changed():
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    read_image(image, 16)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGBA", (10, 10), (0, 0, 0, 0))


def test_exif_orientation(tmp_path):
    image = Image.new("RGB", (40, 20), WHITE)
    image.paste(RED, (0, 0, 20, 20))  # the left half, which a quarter turn brings to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "phone.png", image, exif=exif)
    upright = open_image(path)
    assert upright.size == (20, 40)
    assert (upright.getpixel((10, 5)), upright.getpixel((10, 35))) == (RED, WHITE)


def half_transparent() -> Image.Image:
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 5, 10))
    return image


def palette() -> Image.Image:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([*RED, 0, 0, 0])
    image.paste(0, (0, 0, 5, 10))
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize("image", [half_transparent(), palette()], ids=["RGBA", "P"])
@pytest.mark.parametrize("kind", ["png", "gif", "webp", "image"])
def test_transparency_is_white(tmp_path, image, kind):
    if kind != "image":
        options = {"lossless": True} if kind == "webp" else {}
        image = saved(tmp_path / f"a.{kind}", image, **options)
    rgb = open_image(image)
    assert (rgb.getpixel((1, 1)), rgb.getpixel((8, 8))) == (RED, WHITE)


@pytest.mark.parametrize(
    ("mode", "colour", "kind"),
    [("L", 255, "png"), ("LA", (255, 255), "png"), ("1", 1, "png"), ("CMYK", (0, 0, 0, 0), "jpg")],
)
def test_other_modes(tmp_path, mode, colour, kind):
    path = saved(tmp_path / f"a.{kind}", Image.new(mode, (10, 10), colour))
    assert open_image(path).getpixel((5, 5)) == WHITE
    assert open_image(Image.open(path)).getpixel((5, 5)) == WHITE


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    pixels = np.tile(np.linspace(0, 65_535, 16).astype(np.uint16), (16, 1))
    path = saved(tmp_path / "deep.png", Image.fromarray(pixels))
    found = np.asarray(open_image(path))[0, :, 0]
    np.testing.assert_allclose(found, np.linspace(0, 255, 16), atol=1)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_levels_of_any_depth(tmp_path, bits, kind):
    levels = np.linspace(0, 2**bits - 1, 16).astype(np.uint16 if kind == "png" else np.int32)
    image = Image.fromarray(np.tile(levels, (16, 1)))
    assert image.mode == ("I;16" if kind == "png" else "I")
    for picture in (saved(tmp_path / f"a.{kind}", image), image):
        found = np.asarray(open_image(picture))[0, :, 0]
        np.testing.assert_allclose(found, np.linspace(0, 255, 16), atol=1)


@pytest.mark.parametrize("levels", [[-1, 7], [0, 65_536], [0, 2**31 - 1]])
def test_levels_that_no_image_has(tmp_path, levels):
    image = Image.fromarray(np.resize(np.array(levels, np.int32), (16, 16)))
    with pytest.raises(UserError, match="a.tif has gray levels from .* expected 0 to 65535"):
        open_image(saved(tmp_path / "a.tif", image))


def test_levels_as_whole_floats(tmp_path):
    """Pillow writes SPIDER's files of gray images so."""
    grey = Image.fromarray(noise(16, 16)[..., 0])
    path = saved(tmp_path / "a.spider", grey.convert("F"), format="SPIDER")
    np.testing.assert_array_equal(np.asarray(open_image(path)), np.asarray(grey.convert("RGB")))
    for scale in (1 / 255, 1.5, float("nan")):
        levels = Image.fromarray(np.asarray(grey, np.float32) * np.float32(scale))
        with pytest.raises(UserError, match="floating-point"):
            open_image(levels)


def png(header: tuple, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of a size, depth and type of color, and chunks by kind and data."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def pixels_of(rows: bytes, count: int = 8) -> tuple[bytes, bytes]:
    return b"IDAT", zlib.compress((b"\0" + rows) * count)


@pytest.mark.parametrize(
    ("depth", "color", "row", "transparent"),
    [
        (1, 0, b"\x0f", b"\0\0"),
        (2, 0, b"\x55\xff", b"\0\1"),
        (4, 0, b"\x33\x33\xff\xff", b"\0\3"),
        (8, 0, b"\x55" * 4 + b"\xff" * 4, b"\0\x55"),
        (16, 0, b"\x12\x34" * 4 + b"\xff\xff" * 4, b"\x12\x34"),
        (8, 2, b"\1\2\3" * 4 + b"\xff" * 12, b"\0\1\0\2\0\3"),
        (16, 2, b"\1\2\3\4\5\6" * 4 + b"\xff" * 24, b"\1\2\3\4\5\6"),
    ],
)
def test_a_transparent_color_of_any_depth(tmp_path, depth, color, row, transparent):
    path = tmp_path / "a.png"
    path.write_bytes(png((8, 8, depth, color), pixels_of(row)))
    assert open_image(path).getpixel((1, 1)) != WHITE
    path.write_bytes(png((8, 8, depth, color), (b"tRNS", transparent), pixels_of(row)))
    assert (np.asarray(open_image(path)) == 255).all()  # transparent ones too, and no others
    other = bytes([*transparent[:-1], transparent[-1] ^ (1 if depth < 16 else 0)])
    if depth in (2, 4, 8):
        path.write_bytes(png((8, 8, depth, color), (b"tRNS", other), pixels_of(row)))
        assert open_image(path).getpixel((1, 1)) != WHITE


def test_channels_of_which_the_lowest_bits_alone_are_used(tmp_path):
    row = b"".join(struct.pack(">HHH", 500 * i, 4095, 0) for i in range(8))
    (tmp_path / "a.png").write_bytes(png((8, 8, 16, 2), pixels_of(row)))
    with pytest.raises(UserError, match="a.png has 16 bits a channel, but uses at most 12"):
        open_image(tmp_path / "a.png")


GREY = pixels_of(b"\x80" * 8)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"eXIf", b"garbage!"),
        (b"eXIf", b""),
        (b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2_000_000)),
        (b"iCCP", b"a\0\0" + zlib.compress(b"x" * 2_000_000)),
        (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000)),
        (b"pHYs", b""),
        (b"gAMA", b"1"),
    ],
    ids=lambda chunk: chunk[0].decode(),
)
@pytest.mark.parametrize("behind", [False, True])
def test_sound_pixels_with_broken_metadata_are_read(tmp_path, capsys, chunk, behind):
    path = tmp_path / "a.png"
    chunks = (GREY, chunk) if behind else (chunk, GREY)
    path.write_bytes(png((8, 8, 8, 0), *chunks))
    for _ in range(2):
        assert (np.asarray(open_image(path)) == 128).all()
    err = capsys.readouterr().err
    assert err.count("\n") <= 1 and err.count(f"image {path} has broken metadata") <= 1
    assert err or chunk[0] in (b"pHYs", b"gAMA", b"eXIf") or behind


@pytest.mark.parametrize("tag", [0x0100, 0x011A])  # the width and the resolution
def test_text_where_exif_has_numbers(tmp_path, capsys, tag):
    text = struct.pack("<HHI4s", tag, 2, 3, b"72\0\0")
    turned = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    tags = sorted([text, turned], key=lambda entry: entry[:2][::-1])
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0" + b"".join(tags) + b"\0\0\0\0"
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (40, 20), RED), exif=exif)
    assert open_image(path).size == (40, 20)
    assert f"image {path} has broken metadata" in capsys.readouterr().err


def test_metadata_do_not_make_damaged_pixels_sound(tmp_path):
    kind, data = GREY
    for content in (png((8, 8, 8, 0), (b"eXIf", b"no"), (kind, data[:5])), b"\xff\xd8\xff\xe1"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UserError, match="a.png"):
            open_image(tmp_path / "a.png")


def test_threads_leave_the_filters_of_warnings_alone(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(noise()))
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_image, [path] * 200))
    assert warnings.filters == before


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    faults = {"fifo.png": r"png is no regular file; expected a file\.$", "a" * 300: "too long"}
    for name, message in faults.items():
        with pytest.raises(UserError, match=message):
            open_image(tmp_path / name)
    with pytest.raises(UserError, match="can't be read"):
        open_image("a\0.png")


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (10, 10), c) for c in (RED, WHITE)]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((5, 5)) == RED


def png_of_size(width: int, height: int) -> bytes:
    """The beginning of a PNG that says how large it is, without the pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just some text", "is not an image"),
        (b"", "is not an image"),
        (png_of_size(1, 1), "has 1x1 pixels; each side must have 8 to 9,000"),
        (png_of_size(7, 100), "has 7x100 pixels"),
        (png_of_size(9_001, 8), "has 9001x8 pixels"),
        (png_of_size(9_900, 9_900), "is far too large: sides may have at most 9,000"),
        (png_of_size(30_000, 30_000), "is far too large"),
        (png_of_size(30_000, 30), "has 30000x30 pixels"),
        (png_of_size(100, 100), "cannot be read .* is it complete"),
        (b"P6 4- 40 255 ", "cannot be opened"),
    ],
    ids=["text", "empty", "1", "7", "9001", "9900", "30000", "long", "no pixels", "no number"],
)
def test_bad_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"notes.png {message}"):
        read_image(path, 16)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "bmp", "tif"])
def test_truncated_file_is_refused_by_name(tmp_path, kind):
    whole = saved(tmp_path / f"whole.{kind}", Image.fromarray(noise(64, 64)))
    part = tmp_path / f"part.{kind}"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=f"part.{kind}"):
        read_image(part, 16)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no.png is missing"):
        read_image(tmp_path / "no.png", 16)
    with pytest.raises(UserError, match="is a folder; expected a file"):
        read_image(tmp_path, 16)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (noise().astype(np.float32) / 255, "float32; .* uint8, 0 to 255 .*multiply by 255"),
        (noise().astype(np.int32), "int32; give its pixels as uint8"),
        (noise().transpose(2, 0, 1), r"shape \(3, 20, 30\).*transpose"),
        (noise(channels=2), r"shape \(20, 30, 2\); expected"),
        (noise()[None], "shape"),
        (noise(4, 4), "4x4 pixels"),
        (Image.new("RGB", (1, 1)), "1x1 pixels"),
        (Image.new("F", (10, 10)), "floating-point"),
        (7, "given as int"),
    ],
)
def test_bad_array_is_refused(pixels, message):
    with pytest.raises(UserError, match=message):
        read_image(pixels, 16)


def test_arrays_of_grey_and_transparency():
    assert open_image(np.full((10, 10), 255, np.uint8)).getpixel((0, 0)) == WHITE
    assert open_image(np.zeros((10, 10, 4), np.uint8)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("images", ["a.png", Path("a.png"), Image.new("RGB", (9, 9))])
def test_one_image_instead_of_a_list(images):
    with pytest.raises(UserError, match="put it in a list"):
        read_images(images, 16)


def test_no_images():
    with pytest.raises(UserError, match="images is empty"):
        read_images([], 16)


def test_batch_as_one_array():
    np.testing.assert_array_equal(read_images(noise(16, 16)[None], 16), noise(16, 16)[None])
    with pytest.raises(UserError, match="put it in a list"):
        read_images(noise(16, 16), 16)
