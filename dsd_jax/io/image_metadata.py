"""Files of images without what they say besides pixels: sound images may have broken metadata."""

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG = b"\xff\xd8"
_JPEG_SCAN = 0xDA  # starts the compressed data
# Application segments but JFIF's (0) and Adobe's (14), which say how colors are stored; comments.
_JPEG_DROPPED = {*range(0xE1, 0xEE), 0xEF, 0xFE}


def without_metadata(content: bytes) -> bytes | None:
    """Return a PNG or JPEG file with the parts that make its pixels; None for other files.

    What is left out is EXIF, color profiles, texts and thumbnails. Pixels stay as they are stored,
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
