"""Cache of evaluation scores in a workdir, by which an interrupted run goes on where it was.

A file holds the SHA-256 of what follows, then an .npz of the scores.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from dsd_jax.benchmarks.table_rows import EvalPlan, RowKey
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_regular_file
from dsd_jax.io.storage import is_remote, storage_errors, write_file
from dsd_jax.training.checkpoint_digests import digest
from dsd_jax.version import __version__

Scores = Mapping[RowKey, np.ndarray]

_SUFFIX = ".scores"
_MAX_BYTES = 2**34  # of a file
# The name of what `write_file` leaves of such a file where it is killed.
_UNFINISHED = re.compile(rf"[0-9a-f]{{32}}\{_SUFFIX}\.[0-9a-f]{{8}}\.unfinished")


def scores_identity(model: Model, plan: EvalPlan, data: Mapping[str, Any]) -> str:
    """Return, as JSON, all settings besides the items that scores depend on.

    Args:
        model: that is scored.
        plan: by which it is scored.
        data: the config's settings of the benchmark, JSON values.
    """
    encoding = model.image_identity()[1], model.text_identity()[1]
    prompts = {label: [*map(digest, x.prompts)] for label, x in plan.learned.items()}
    methods = {label: list(x.methods) for label, x in plan.learned.items()}
    specs = [(spec.label, spec.stages) for spec in plan.specs]
    return json.dumps(
        [
            *(__version__, model.weights_digest, repr(model.unet), repr(model.schedule)),
            *encoding,
            *(specs, plan.layers, plan.seed, plan.timesteps, prompts, methods, data),
        ]
    )


class ScoreCache:
    """A folder of scores, each file named by what its scores depend on.

    Args:
        folder: in a workdir; nothing is stored where it is None.
        identity: from `scores_identity`.
    """

    def __init__(self, folder: epath.Path | None, identity: str):
        """Create nothing yet."""
        self._folder = None if folder is None else epath.Path(folder)
        self._identity = identity
        self._names: set[str] = set()  # of files that were asked for

    def load_or_compute(
        self, items: str, compute: Callable[[], Scores]
    ) -> dict[RowKey, np.ndarray]:
        """Return the scores of the items whose identity is `items`, computed if they are not there.

        Raises:
            UserError: the folder cannot be written to.
        """
        if self._folder is None:
            return dict(compute())
        name = hashlib.sha256(f"{self._identity}\n{items}".encode()).hexdigest()
        file = self._folder / (name[:32] + _SUFFIX)
        self._names.add(file.name)
        scores = _read(file)
        if scores is None:
            scores = dict(compute())
            with storage_errors(f"{self._folder} cannot be written to"):
                self._folder.mkdir(parents=True, exist_ok=True)
            write_file(file, _packed(scores))
        return scores

    def delete(self) -> None:
        """Delete all scores in the folder, once they are in a report, and nothing else.

        Other hosts' scores and those of an earlier version are known by their content.
        """
        if self._folder is None or not self._folder.exists():
            return
        with storage_errors(f"{self._folder} cannot be emptied", "allow it, or delete it yourself"):
            for file in list(self._folder.iterdir()):
                if self._is_own(file):
                    file.unlink()
            if not is_remote(self._folder) and not any(self._folder.iterdir()):
                self._folder.rmdir()

    def _is_own(self, file: epath.Path) -> bool:
        """Return whether this program has written a file."""
        if file.is_dir():
            return False
        if file.name in self._names or _UNFINISHED.fullmatch(file.name):
            return True
        return file.name.endswith(_SUFFIX) and _intact_content(file) is not None


def _packed(scores: Scores) -> bytes:
    """Return the content of a file of scores."""
    buffer = io.BytesIO()
    names = np.array([json.dumps(key) for key in scores])
    np.savez(buffer, *scores.values(), names=names)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def _read(file: epath.Path) -> dict[RowKey, np.ndarray] | None:
    """Return the scores in a file; None where there is none, or a damaged one."""
    content = _intact_content(file)
    if content is None:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        keys = [RowKey(*json.loads(str(name))) for name in stored["names"]]
        return {key: stored[f"arr_{i}"] for i, key in enumerate(keys)}


def _intact_content(file: epath.Path) -> bytes | None:
    """Return the .npz in a file of scores; None where there is none, or a damaged one."""
    try:
        content = file.read_bytes() if is_remote(file) else read_regular_file(file, most=_MAX_BYTES)
    except (OSError, UserError):
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    return content[32:]
