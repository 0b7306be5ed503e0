"""Lists what the caches hold and how large they are, and cleans them."""

import os
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsd_jax.cli import Parser, run_command
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import COMPILED, cache_folder
from dsd_jax.io.storage import storage_errors
from dsd_jax.io.terminal import did_you_mean, printable, shorten

EXAMPLE = """dsd-jax cache
  dsd-jax cache clean --older-than=30
  dsd-jax cache clean programs"""
# Folders in the cache folder that the program writes; it looks at nothing else there.
KINDS = {
    COMPILED: "programs that JAX has compiled",
    "compiled": "the same, of earlier versions",
    "encoded": "images and captions that a model has encoded",
    "emoji": "the bundled benchmark, drawn",
    "made": "small generated data sets",
    "times": "how long runs took, for the banner of the next one",
}
DAY = 86_400  # seconds


@dataclass(frozen=True)
class Entry:
    """A part of a cache that is kept or deleted as a whole.

    Attributes:
        paths: files, or the folder of a data set.
        size: in bytes.
        used: when it was last read or written, in seconds since 1970.
    """

    paths: tuple[Path, ...]
    size: int
    used: float


def make_parser() -> Parser:
    """Return the parser of the command line."""
    purpose = f"{__doc__}\nAll of it is made again when it is needed."
    parser = Parser("cache", purpose, EXAMPLE)
    parser.add_argument(
        "action", nargs="?", choices=("list", "clean"), default="list", help="default: list"
    )
    kinds = ", ".join(KINDS)
    parser.add_argument("kind", nargs="*", metavar="KIND", help=f"{kinds}; default: all of them")
    parser.add_argument(
        "--older-than",
        type=float,
        default=0.0,
        metavar="DAYS",
        help="clean only what was not used for so many days",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be cleaned")
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = make_parser().parse_args(argv)
    for kind in flags.kind:
        if kind not in KINDS:
            hint = did_you_mean(kind, list(KINDS))
            raise UserError(
                f"there is no cache {shorten(kind)}; {hint and f'{hint} '}Expected some of "
                f"{', '.join(KINDS)}."
            )
    if not 0 <= flags.older_than < float("inf"):
        raise UserError(f"--older-than={flags.older_than} should be a number of days, 0 or more.")
    kinds, folder = flags.kind or list(KINDS), cache_folder()
    print(clean(folder, kinds, flags) if flags.action == "clean" else listing(folder, kinds))


def listing(folder: Path, kinds: Sequence[str]) -> str:
    """Return lines on what the caches hold, the Hub's models last."""
    lines = [f"{printable(str(folder))}:"]
    for kind in kinds:
        entries = list(find_entries(folder, kind))
        if entries:
            days = (time.time() - max(entry.used for entry in entries)) / DAY
            size = in_words(sum(entry.size for entry in entries))
            when = "today" if days < 1 else f"{days:.0f} days ago"
            lines.append(f"  {kind:<9} {size:>9}  {KINDS[kind]}, last used {when}")
    if len(lines) == 1:
        lines.append("  nothing")
    models = _hub_folder()
    if models.is_dir():
        size = in_words(sum(file_size for _, file_size, _ in _walk(models)))
        lines += [f"{printable(str(models))}:", f"  {'models':<9} {size:>9}  of the Hub, which"]
        lines[-1] += " `hf cache` lists and cleans"
    return "\n".join(lines)


def clean(folder: Path, kinds: Sequence[str], flags: Namespace) -> str:
    """Delete the entries that were not used for long enough; return a line on each kind.

    Raises:
        UserError: the system does not let us delete something.
    """
    lines, latest = [], time.time() - flags.older_than * DAY
    for kind in kinds:
        entries = [entry for entry in find_entries(folder, kind) if entry.used <= latest]
        if not entries:
            continue
        if not flags.dry_run:
            with storage_errors(f"{folder / kind} cannot be cleaned", "see who may write to it"):
                for path in [path for entry in entries for path in entry.paths]:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        done = "would clean" if flags.dry_run else "cleaned"
        size = in_words(sum(entry.size for entry in entries))
        lines.append(f"{done} {size} of {printable(str(folder / kind))}")
    return "\n".join(lines) or f"nothing to clean in {printable(str(folder))}"


def find_entries(folder: Path, kind: str) -> Iterator[Entry]:
    """Yield the entries of a kind; nothing where its folder is a link, which leads elsewhere.

    Compiled programs come as two files, encodings as one each; a data set is a folder.
    """
    place = folder / kind
    if place.is_symlink() or not place.is_dir():
        return
    if kind in ("emoji", "made"):
        groups = {child: list(_walk(child)) for child in place.iterdir() if not child.is_symlink()}
        for child, files in groups.items():
            sizes, times = [size for _, size, _ in files], [used for _, _, used in files]
            yield Entry((child,), sum(sizes), max(times, default=child.stat().st_mtime))
        return
    pairs: dict[str, list[tuple[Path, int, float]]] = {}
    for file in _walk(place):
        stem = str(file[0]).removesuffix("-cache").removesuffix("-atime")
        pairs.setdefault(stem, []).append(file)
    for files in pairs.values():
        size, used = sum(size for _, size, _ in files), max(used for _, _, used in files)
        yield Entry(tuple(path for path, _, _ in files), size, used)


def _walk(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """Yield (path, bytes, last use) of the regular files in a folder, of no links."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                found = path.lstat()
            except OSError:  # gone meanwhile
                continue
            if path.is_file() and not path.is_symlink():
                yield path, found.st_size, max(found.st_mtime, found.st_atime)


def _hub_folder() -> Path:
    """Return the folder in which huggingface_hub keeps what it has fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def in_words(size: float) -> str:
    """Return a number of bytes in a unit that fits it."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


if __name__ == "__main__":
    run_command(main)
