"""Pixels: every kind of picture comes out right, and what is none is refused by name."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsd_jax.data.images import open_image, read_image, read_images
from dsd_jax.errors import UserError

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
        (b"just some text", "is not a picture"),
        (b"", "is not a picture"),
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
    with pytest.raises(UserError, match="no.png does not exist"):
        read_image(tmp_path / "no.png", 16)
    with pytest.raises(UserError, match="is a folder"):
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
def test_one_picture_instead_of_a_list(images):
    with pytest.raises(UserError, match="put it in a list"):
        read_images(images, 16)


def test_no_pictures():
    with pytest.raises(UserError, match="images is empty"):
        read_images([], 16)


def test_batch_as_one_array():
    np.testing.assert_array_equal(read_images(noise(16, 16)[None], 16), noise(16, 16)[None])
    with pytest.raises(UserError, match="put it in a list"):
        read_images(noise(16, 16), 16)
