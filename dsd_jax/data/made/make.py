"""Makes a small data set in a public layout, once, into a cache folder."""

from collections.abc import Callable
from pathlib import Path

from dsd_jax.data.made import classify, comvg, own, refcocog, sugarcrepe, vqa, winoground
from dsd_jax.data.preparation import prepared
from dsd_jax.data.sprites import Sprites, load_sprites
from dsd_jax.errors import UserError

VERSION = "1"  # raise it whenever a made file changes: folders of earlier ones are left alone
MAKERS: dict[str, Callable[[Path, Sprites], None]] = {
    "comvg": comvg.make,
    "refcocog": refcocog.make,
    "vqa": vqa.make,
    "winoground": winoground.make,
    "sugarcrepe": sugarcrepe.make,
    "classify": classify.make,
    "own": own.make,
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
