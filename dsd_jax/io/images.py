"""Reading images: any file, PIL image or array becomes RGB uint8 of the size a model wants."""

import io
import re
import sys
import threading
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from dsd_jax.errors import UserError
from dsd_jax.io.image_formats import fit_transparency, to_eight_bits, without_metadata
from dsd_jax.io.local_files import read_regular_file

MIN_SIDE = 8  # smaller images are mistakes: they would be blown up to a flat color
MAX_SIDE = 9_000  # 81 megapixels; just under where Pillow suspects a decompression bomb

ImageInput: TypeAlias = str | Path | Image.Image | np.ndarray
OWN_SIZE = 0  # in place of a size: the image as it is
FITS = ("stretch", "crop")  # how an image becomes square
_MOST_BYTES = 2**30  # of an image's file
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")
_LOCK = threading.Lock()
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_images(images: Sequence[ImageInput] | np.ndarray, size: int) -> np.ndarray:
    """Read images of any kind; returns uint8 of shape (I, size, size, 3).

    Raises:
        UserError: `images` is no list of them, or one cannot be read, as `open_image` says.
    """
    check_images(images)
    return np.stack([read_image(image, size) for image in images])


def check_images(images: Sequence[ImageInput] | np.ndarray) -> None:
    """Raise `UserError` unless these are one or more images in a list or an array of four dims."""
    if isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) != 4:
        raise UserError("images is one image; put it in a list, as in images=[image].")
    if len(images) == 0:
        raise UserError("images is empty; give at least one image.")


def read_image(image: ImageInput, size: int, fit: str = "stretch") -> np.ndarray:
    """Read one image; returns uint8 of shape (size, size, 3).

    It is resized bicubically to the square whatever its aspect ratio, as the authors of the method
    do; with fit "crop" the aspect ratio is kept, and only the middle of a longer side is seen.

    Raises:
        UserError: as `open_image` does.
    """
    return to_square(open_image(image), size, fit)


def read_content(content: bytes, size: int, fit: str, name: str) -> np.ndarray:
    """Read an image's file that is in memory; returns uint8 of shape (size, size, 3).

    Raises:
        UserError: as `open_content` does.
    """
    return to_square(open_content(content, name), size, fit)


def to_square(image: Image.Image, size: int, fit: str) -> np.ndarray:
    """Resize an RGB image; returns uint8 (size, size, 3), or with `OWN_SIZE` its own shape."""
    if size == OWN_SIZE:
        return np.asarray(image)
    box = middle(image.size) if fit == "crop" else None
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))


def middle(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the biggest square in the middle of an image: left, top, right, bottom."""
    side = min(size)
    left, top = ((length - side) / 2 for length in size)
    return left, top, left + side, top + side


def open_image(image: ImageInput) -> Image.Image:
    """Return the image in mode RGB, upright (EXIF) and over white where it is transparent.

    Args:
        image: a path, a PIL image or a uint8 array of shape (height, width), (height, width, 3) or
            (height, width, 4); an animation's first frame is read.

    Raises:
        UserError: it is no image, damaged, or has a side shorter than `MIN_SIDE` or longer than
            `MAX_SIDE` pixels.
    """
    if isinstance(image, str | Path):
        return open_content(read_regular_file(image, most=_MOST_BYTES), f"image {image}")
    if isinstance(image, Image.Image):
        return _decode(image, "an image", [])
    if hasattr(image, "__array__"):
        return from_array(np.asarray(image))
    raise UserError(
        f"an image is given as {type(image).__name__}; expected a path, a PIL image or a uint8 "
        "array."
    )


def open_content(content: bytes, name: str) -> Image.Image:
    """Return the image of a file's content, as `open_image` does.

    If nothing but metadata is broken, the image is read without them, and a line on stderr says
    so.

    Args:
        content: the file's bytes.
        name: what the image is called in messages.

    Raises:
        UserError: it is no image, damaged, too small or too large.
    """
    faults: list[str] = []
    try:
        image = _decode_content(content, name, faults)
    except UserError as error:
        bare = without_metadata(content)
        if error.__cause__ is None or bare is None or len(bare) == len(content):
            raise
        try:
            image = _decode_content(bare, name, [])
        except UserError:
            raise error from error.__cause__
        # Pillow 12 names the object that holds the bytes, by an address that differs each time.
        faults.append(_ADDRESS.sub("", str(error.__cause__)))
    if faults:
        _tell(f"{name} has broken metadata ({faults[0]}); it is read without them, not turned.")
    return image


@lru_cache(maxsize=10_000)
def _tell(text: str) -> None:
    """Print a line on stderr, once however often an image is read."""
    print(text, file=sys.stderr)


def _decode_content(content: bytes, name: str, faults: list[str]) -> Image.Image:
    try:
        # Filters of warnings belong to all threads: one at a time changes them and puts them back.
        with _LOCK, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{name} is far too large: sides may have at most {MAX_SIDE:,} pixels."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image in a format that Pillow can read.") from error
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise UserError(f"{name} cannot be opened ({error}).") from error
    with image:
        return _decode(image, name, faults)


def _decode(image: Image.Image, name: str, faults: list[str]) -> Image.Image:
    """Read the pixels, which Pillow puts off until somebody asks for them."""
    check_size(image.size, name)
    try:
        rgb = to_rgb(image, name)
    except UserError:
        raise
    except Exception as error:  # see _decode_content
        raise UserError(f"{name} cannot be read ({error}); is it complete?") from error
    return _upright(image, rgb, faults)


def _upright(image: Image.Image, rgb: Image.Image, faults: list[str]) -> Image.Image:
    """Return `rgb` turned as the EXIF data of `image` say; if these are broken, as it is."""
    try:
        with _LOCK, warnings.catch_warnings():
            warnings.filterwarnings("error", module=r"PIL\.")
            orientation = image.getexif().get(_ORIENTATION, 1)
            if orientation != 1:
                image.getexif().tobytes()  # broken values show when they are written
    except Exception as error:  # whatever is in there, the pixels are sound
        faults.append(str(error))
        return rgb
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return rgb if turn is None else rgb.transpose(turn)


def check_size(size: tuple[int, int], name: str) -> None:
    """Refuse what is too small to show anything or too large to decode."""
    if min(size) < MIN_SIDE or max(size) > MAX_SIDE:
        raise UserError(
            f"{name} has {size[0]}x{size[1]} pixels; each side must have {MIN_SIDE} to "
            f"{MAX_SIDE:,}."
        )


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Return an image of any mode in RGB; transparent parts become white."""
    if image.mode[0] in "IF":  # more than 8 bits; Pillow's own conversion would clip at 255
        return to_eight_bits(image, name)
    image = fit_transparency(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def from_array(pixels: np.ndarray) -> Image.Image:
    """Return an array as `open_image` does."""
    if pixels.dtype != np.uint8:
        hint = " (if they are 0 to 1, multiply by 255 first)" if pixels.dtype.kind == "f" else ""
        raise UserError(
            f"an image's array is {pixels.dtype}; give its pixels as uint8, 0 to 255{hint}."
        )
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        hint = ", so transpose it" if pixels.ndim == 3 and pixels.shape[0] in (3, 4) else ""
        raise UserError(
            f"an image's array has shape {pixels.shape}; expected (height, width, 3){hint}."
        )
    check_size((pixels.shape[1], pixels.shape[0]), "an image's array")
    return to_rgb(Image.fromarray(pixels), "an image's array")
