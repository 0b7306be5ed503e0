"""Peculiarities of image files: gray levels of many bits, transparent colors, broken metadata."""

import struct

import numpy as np
from PIL import Image

from dsd_jax.errors import UserError

_DEPTHS = (8, 12, 16)  # bits in which cameras and programs write gray levels
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG = b"\xff\xd8"
_JPEG_SCAN = 0xDA  # starts the compressed data
# Application segments but JFIF's (0) and Adobe's (14), which say how colors are stored; comments.
_JPEG_DROPPED = {*range(0xE1, 0xEE), 0xEF, 0xFE}


def to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Return an image of mode I, I;16 or F in mode RGB.

    Files say that a level has 16 or 32 bits although only 8 or 12 are used, and would come out
    nearly black; so the depth is the smallest usual one that holds the largest level.

    Raises:
        UserError: levels are negative, beyond 16 bits, or no whole numbers.
    """
    levels = np.asarray(image)
    if image.mode == "F":
        whole = np.isfinite(levels).all() and (levels == np.round(levels)).all()
        if not whole or levels.max() <= 1 or levels.max() > 255:  # 0 to 1 may be anything
            raise UserError(f"{name} has floating-point pixels; save it with 8 bits a channel.")
    levels = levels.astype(np.int64)
    lowest, highest = int(levels.min()), int(levels.max())
    if lowest < 0 or highest >= 2**16:
        raise UserError(
            f"{name} has gray levels from {lowest} to {highest}, expected 0 to 65535 at most; save "
            "it with 8 or 16 bits a channel."
        )
    depth = next(bits for bits in _DEPTHS if highest < 2**bits)
    gray = levels * 255 // (2**depth - 1)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[levels == transparent] = 255
    return Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def fit_transparency(image: Image.Image, name: str) -> Image.Image:
    """Return an image whose transparent color is of the depth of its pixels.

    A PNG names the color in the file's own depth, which Pillow keeps, while it makes eight bits of
    the pixels.

    Raises:
        UserError: its channels have 16 bits of which only the lowest are used, which Pillow drops.
    """
    tiles = getattr(image, "tile", None)
    stored = tiles[0].args if tiles else None
    stored = stored[0] if isinstance(stored, tuple) and stored else stored
    image.load()
    color = image.info.get("transparency")
    if isinstance(stored, str) and stored.startswith("RGB;16"):
        if np.max(np.asarray(image.getextrema())[:3, 1]) < 16:
            raise UserError(
                f"{name} has 16 bits a channel, but uses at most 12 of them, so that it is nearly "
                "black; save it with 8 bits a channel."
            )
        if isinstance(color, tuple):
            image.info["transparency"] = tuple(level >> 8 for level in color)
    scale = {"L;2": 85, "L;4": 17}.get(stored if isinstance(stored, str) else "")
    if scale and isinstance(color, int):
        image.info["transparency"] = color * scale
    return image


def without_metadata(content: bytes) -> bytes | None:
    """Return a PNG or JPEG file with the parts that make its pixels; None for other files.

    EXIF, color profiles, texts and thumbnails are left out. Pixels stay as they are stored,
    so that an image that lies on its side by EXIF stays on its side.
    """
    if content.startswith(_PNG):
        return _bare_png(content)
    if content.startswith(_JPEG):
        return _bare_jpeg(content)
    return None


def _bare_png(content: bytes) -> bytes:
    parts, place = [_PNG], len(_PNG)
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length  # length, kind, data, checksum
        if kind in _PNG_KEPT:
            parts.append(content[place:end])
        place = end
    return b"".join(parts)


def _bare_jpeg(content: bytes) -> bytes:
    parts, place = [_JPEG], len(_JPEG)
    while place + 4 <= len(content) and content[place] == 0xFF:
        kind = content[place + 1]
        if kind == _JPEG_SCAN:
            break
        if kind == 0xFF:  # padding
            place += 1
            continue
        (length,) = struct.unpack_from(">H", content, place + 2)
        if kind not in _JPEG_DROPPED:
            parts.append(content[place : place + 2 + length])
        place += 2 + length
    return b"".join([*parts, content[place:]])
