"""Compiled programs, which JAX keeps on disk, so that a second start takes seconds.

On by default for commands, notebooks and other programs that load a model.
`DSD_COMPILATION_CACHE=0` turns it off, as JAX's own `JAX_ENABLE_COMPILATION_CACHE=0` does. Where
`JAX_COMPILATION_CACHE_DIR` names another folder, nothing is changed here.
"""

import contextlib
import os
import shutil
import warnings
from pathlib import Path

import jax

from dsd_jax.distributed.xla_messages import is_talkative
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import COMPILED, cache_folder

_MAX_BYTES = 2**30  # of the folder, of which JAX then drops what was not used for the longest time
_MIN_FREE = 2**29  # bytes of the disk: on one that is nearly full nothing is kept


def keep_compiled_programs() -> None:
    """Have JAX keep what it compiles, the many small programs too, in a folder of limited size.

    Where there is no such folder, or no room, it compiles again each time, and says nothing.
    """
    is_off = os.environ.get("DSD_COMPILATION_CACHE", "").strip().lower() in ("0", "false", "off")
    if is_off or jax.config.values["jax_compilation_cache_dir"] or is_talkative():
        return
    with contextlib.suppress(UserError, OSError):  # nobody's home, read-only
        folder = cache_folder() / COMPILED
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= _MIN_FREE:
            _drop_halves(folder)
            _use(folder)


def _use(folder: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if jax.config.values["jax_compilation_cache_max_size"] < 0:
        jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    # An entry that can't be read or written (another process, a disk that is full) is compiled.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _drop_halves(folder: Path) -> None:
    """Delete entries of processes that were killed before they wrote when an entry was used.

    JAX 0.10 would write no other any more.
    """
    names = set(os.listdir(folder))
    for name in names:
        if name.endswith("-cache") and f"{name.removesuffix('-cache')}-atime" not in names:
            (folder / name).unlink(missing_ok=True)
