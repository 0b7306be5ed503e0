"""Grey levels of more than eight bits, and transparent colors, as files of images hold them."""

import numpy as np
from PIL import Image

from dsd_jax.errors import UserError

_DEPTHS = (8, 12, 16)  # bits in which cameras and programs write grey levels


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
            f"{name} has grey levels from {lowest} to {highest}, expected 0 to 65535 at most; save "
            "it with 8 or 16 bits a channel."
        )
    depth = next(bits for bits in _DEPTHS if highest < 2**bits)
    grey = levels * 255 // (2**depth - 1)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[levels == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def fit_transparency(image: Image.Image, name: str) -> Image.Image:
    """Return an image whose transparent color is of the depth of its pixels.

    A PNG names the color in the file's own depth, which Pillow keeps, while it makes eight bits of
    the pixels.

    Raises:
        UserError: its channels have 16 bits of which only the lowest are used, which Pillow drops.
    """
    stored = image.tile[0].args if getattr(image, "tile", None) else None
    stored = stored[0] if isinstance(stored, tuple) and stored else stored
    image.load()
    color = image.info.get("transparency")
    if isinstance(stored, str) and stored.startswith("RGB;16"):
        if max(highest for _, highest in image.getextrema()[:3]) < 16:
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
