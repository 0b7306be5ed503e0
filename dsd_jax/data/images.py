"""The one way in for pixels: any picture becomes RGB uint8 of the size that the model wants."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps

from dsd_jax.errors import UserError

MIN_SIDE = 8  # smaller pictures are mistakes: they would be blown up to a flat colour
MAX_SIDE = 9_000  # 81 megapixels; just under where Pillow suspects a decompression bomb

Picture: TypeAlias = str | Path | Image.Image | np.ndarray
FITS = ("stretch", "crop")  # how a picture becomes square


def read_images(images: Sequence[Picture], size: int) -> np.ndarray:
    """Reads pictures of any kind; returns uint8 of shape (I, size, size, 3)."""
    if isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) != 4:
        raise UserError("images is one picture; put it in a list, as in images=[picture].")
    if len(images) == 0:
        raise UserError("images is empty; give at least one picture.")
    return np.stack([read_image(image, size) for image in images])


def read_image(image: Picture, size: int, fit: str = "stretch") -> np.ndarray:
    """Reads one picture; returns uint8 of shape (size, size, 3), values 0..255.

    Resized bicubically to the square whatever its aspect ratio, as the authors of the method do;
    with fit "crop" the aspect ratio is kept, and of a longer side only the middle is seen.
    Raises `UserError` as `open_image` does.
    """
    return squared(open_image(image), size, fit)


def squared(picture: Image.Image, size: int, fit: str) -> np.ndarray:
    """uint8 (size, size, 3) of an RGB picture."""
    box = middle(picture.size) if fit == "crop" else None
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box))


def middle(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The biggest square in the middle of a picture: left, top, right, bottom."""
    side = min(size)
    left, top = ((length - side) / 2 for length in size)
    return left, top, left + side, top + side


def open_image(image: Picture) -> Image.Image:
    """Returns the picture in mode RGB, upright (EXIF) and over white where it is transparent.

    `image` is a path, a PIL image or a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4). Of an
    animation it is the first frame. Raises `UserError` if it is no picture, damaged, or has a side
    shorter than `MIN_SIDE` or longer than `MAX_SIDE` pixels.
    """
    if isinstance(image, str | Path):
        return open_file(Path(image))
    if isinstance(image, Image.Image):
        return decode(image, "a picture")
    if hasattr(image, "__array__"):
        return from_array(np.asarray(image))
    raise UserError(
        f"a picture is given as {type(image).__name__}; expected a path, a PIL image or a uint8 "
        "array."
    )


def open_file(path: Path) -> Image.Image:
    """`open_image` for a path."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"picture {path} {kind}; give the path of a picture file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                return decode(file, f"picture {path}")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"picture {path} is far too large: sides may have at most {MAX_SIDE:,} pixels."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture in a format that Pillow can read.") from error
    except UserError:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise UserError(f"picture {path} cannot be opened ({error}).") from error


def decode(image: Image.Image, name: str) -> Image.Image:
    """Reads the pixels, which Pillow puts off until somebody asks for them."""
    check_size(image.size, name)
    try:
        return to_rgb(ImageOps.exif_transpose(image), name)
    except UserError:
        raise
    except Exception as error:  # see open_file
        raise UserError(f"{name} cannot be read ({error}); is it complete?") from error


def check_size(size: tuple[int, int], name: str) -> None:
    """Refuses what is too small to show anything or too large to decode."""
    if min(size) < MIN_SIDE or max(size) > MAX_SIDE:
        raise UserError(
            f"{name} has {size[0]}x{size[1]} pixels; each side must have {MIN_SIDE} to "
            f"{MAX_SIDE:,}."
        )


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any mode to RGB; transparent parts become white."""
    if image.mode == "F":
        raise UserError(f"{name} has floating-point pixels; save it with 8 bits a channel.")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        pixels = np.asarray(image).astype(np.int64)
        return Image.fromarray((pixels.clip(0, 65_535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def from_array(pixels: np.ndarray) -> Image.Image:
    """`open_image` for an array."""
    if pixels.dtype != np.uint8:
        hint = " (if they are 0 to 1, multiply by 255 first)" if pixels.dtype.kind == "f" else ""
        raise UserError(
            f"a picture's array is {pixels.dtype}; give its pixels as uint8, 0 to 255{hint}."
        )
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        hint = ", so transpose it" if pixels.ndim == 3 and pixels.shape[0] in (3, 4) else ""
        raise UserError(
            f"a picture's array has shape {pixels.shape}; expected (height, width, 3){hint}."
        )
    check_size((pixels.shape[1], pixels.shape[0]), "a picture's array")
    return to_rgb(Image.fromarray(pixels), "a picture's array")
