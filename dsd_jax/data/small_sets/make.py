"""Makes a small data set in a public layout, once, into a cache folder."""

from collections.abc import Callable
from pathlib import Path

from dsd_jax.data.prepared_folder import prepared
from dsd_jax.data.small_sets import (
    small_classification,
    small_comvg,
    small_custom,
    small_refcocog,
    small_sugarcrepe,
    small_vqa,
    small_winoground,
)
from dsd_jax.data.synthetic.sprites import Sprites, load_sprites
from dsd_jax.errors import UserError

VERSION = "1"  # raise it whenever a made file changes: folders of earlier ones are left alone
MAKERS: dict[str, Callable[[Path, Sprites], None]] = {
    "comvg": small_comvg.make,
    "refcocog": small_refcocog.make,
    "vqa": small_vqa.make,
    "winoground": small_winoground.make,
    "sugarcrepe": small_sugarcrepe.make,
    "classify": small_classification.make,
    "own": small_custom.make,
}


def made_folder(name: str, data_dir: Path) -> Path:
    """The folder of a made data set, written first if it isn't there.

    Args:
        name: a key of `MAKERS`.
        data_dir: what made data sets are kept in.

    Raises:
        UserError: there is none of that name, or it is not possible to write there.
    """
    if name not in MAKERS:
        raise UserError(f"There is no made data set '{name}'; expected {', '.join(MAKERS)}.")

    def write(temporary: Path) -> Path:
        folder = temporary / "folder"
        folder.mkdir()
        MAKERS[name](folder, load_sprites())
        return folder

    return prepared(data_dir, Path("made") / name / VERSION, write)
