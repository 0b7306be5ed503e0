"""Prompts on disk: a safetensors file, and their metadata beside it (`prompt_metadata`)."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import json_object, read_regular_file
from dsd_jax.io.storage import is_remote, storage_errors, write_file
from dsd_jax.io.validation import parse
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.prompts.prompt_checks import check_prompts
from dsd_jax.prompts.prompt_metadata import GivenPrompts, Learned, PromptMetadata
from dsd_jax.prompts.prompt_params import KINDS
from dsd_jax.tensor_files.safetensors_file import TYPES, parse_header
from dsd_jax.tensor_files.stored_tensor import FLOATING
from dsd_jax.training.checkpoint_digests import digest

_TENSORS, _METADATA = "prompts.safetensors", "prompts.json"
FILES = (_TENSORS, _METADATA)
_MOST_METADATA, _MOST_TENSORS = 2**24, 2**34  # bytes


def write_prompts(
    folder: str | os.PathLike, prompts: Mapping[str, Any], metadata: Mapping[str, Any]
) -> None:
    """Write prompts and their metadata, each file completely or not at all, metadata last.

    Args:
        folder: local or in a bucket; made where it is missing.
        prompts: a prompts pytree.
        metadata: JSON values, such as method, layers and timesteps.

    Raises:
        UserError: the folder cannot be written to, or has tensors that another program wrote.
    """
    from safetensors.numpy import save

    folder = epath.Path(folder)
    with storage_errors(f"{folder} cannot be written to"):
        folder.mkdir(parents=True, exist_ok=True)
    if not is_complete(folder) and holds_prompts(
        folder
    ):  # this program may have been killed before
        _check_own(folder / _TENSORS)
    tensors = {name: np.array(leaf, order="C") for name, leaf in _flat(prompts).items()}
    write_file(folder / _TENSORS, save(tensors, metadata={"digest": digest(tensors)}))
    write_file(folder / _METADATA, json.dumps(metadata, indent=2))


def _check_own(file: epath.Path) -> None:
    """Refuse to overwrite tensors of another program, which have no digest in their header."""
    try:
        content = _read(file, most=_MOST_TENSORS)
        is_own = "digest" in parse_header(content, len(content), str(file)).metadata
    except UserError:
        is_own = False
    if not is_own:
        raise UserError(f"{file} was not written by this program; move it away and run again.")


def read_prompts(where: GivenPrompts | os.PathLike, config: UNetConfig) -> dict[str, Any]:
    """Return the pytree of prompts: of learned ones, of a folder, a given one, or {} for None.

    Raises:
        UserError: the folder holds no prompts, or they were trained for another model.
    """
    if where is None:
        return {}
    where = where.params if isinstance(where, Learned) else where
    if isinstance(where, Mapping):
        check_prompts(where, config)
        return dict(where)
    prompts = read_any_prompts(epath.Path(where))
    try:
        check_prompts(prompts, config)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return prompts


def fingerprint(folder: str | os.PathLike) -> str:
    """Return a SHA-256 of the files of a prompts folder."""
    total = hashlib.sha256()
    for name in FILES:
        file = epath.Path(folder) / name
        content = _read(file, most=_MOST_TENSORS) if file.exists() else b""
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def is_complete(folder: epath.Path) -> bool:
    """Return whether `write_prompts` has finished there."""
    return (folder / _METADATA).exists()


def holds_prompts(folder: str | os.PathLike) -> bool:
    """Return whether there are prompts in a folder."""
    return (epath.Path(folder) / _TENSORS).exists()


def read_metadata(where: str | os.PathLike) -> PromptMetadata:
    """Return the metadata of the prompts in a folder.

    Raises:
        UserError: there is no such file, or it is not valid.
    """
    file = epath.Path(where) / _METADATA
    values = json_object(_read(file, most=_MOST_METADATA), str(file))
    return parse(PromptMetadata, values, str(file), "expected what train or convert writes")


def check_holds_prompts(folder: str | os.PathLike) -> None:
    """Check that a folder holds prompts.

    Raises:
        UserError: it does not; the message names a folder below it that does.
    """
    if holds_prompts(folder):
        return
    below = [] if is_remote(folder) else sorted(Path(folder).glob(f"**/{_TENSORS}"))
    hint = f"such as {below[0].parent}" if below else "in the workdir's prompts/"
    raise UserError(
        f"{folder} holds no prompts: {_TENSORS} is missing; expected a folder that train wrote, "
        f"{hint}."
    )


def read_any_prompts(folder: epath.Path) -> dict[str, Any]:
    """Return the prompts of a folder without checking their model; raises as `read_prompts`."""
    check_holds_prompts(folder)
    file = folder / _TENSORS
    prompts: dict[str, Any] = {}
    for name, tensor in _read_tensors(file).items():
        kind, *keys = name.split("/")
        with np.errstate(over="ignore"):  # what is not finite as float32 is refused
            numbers = tensor.astype(np.float32)
        if kind not in KINDS or not keys or "" in keys or not np.isfinite(numbers).all():
            raise UserError(f"{file}: '{name}' is not a finite tensor of {', '.join(KINDS)}.")
        node = prompts
        for key in [kind, *keys[:-1]]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UserError(f"{file}: '{name}' lies below another tensor; train again.")
        if keys[-1] in node:
            raise UserError(f"{file}: other tensors lie below '{name}'; train again.")
        node[keys[-1]] = jnp.asarray(numbers)
    return prompts


def _read(file: epath.Path, *, most: int) -> bytes:
    """Return the content of a local file or of one in a bucket."""
    if not is_remote(file):
        return read_regular_file(file, most=most)
    if not file.exists():
        raise UserError(f"{file} is missing.")
    with storage_errors(f"{file} can't be read", "log in or name another bucket"):
        return file.read_bytes()


def _read_tensors(file: epath.Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file, checked against the digest in its header if there is one."""
    content = _read(file, most=_MOST_TENSORS)
    try:
        header = parse_header(content, len(content), str(file))
    except UserError as error:
        reason = str(error).removeprefix(f"{file} ").removesuffix(".").split(";")[0]
        raise UserError(f"{file} is damaged: {reason}; train again or copy it again.") from error
    tensors = {}
    for name, entry in header.tensors.items():
        if entry.dtype not in TYPES:
            raise UserError(
                f"{file}: '{name}' is of {entry.dtype}, expected one of {', '.join(TYPES)}; save "
                "the prompts as float32."
            )
        dtype, begin = FLOATING[TYPES[entry.dtype]], header.start + entry.data_offsets[0]
        numbers = np.frombuffer(content, dtype, math.prod(entry.shape), begin)
        tensors[name] = numbers.reshape(entry.shape)
    expected = header.metadata.get("digest")
    if expected is not None and digest(tensors) != expected:
        raise UserError(
            f"{file} is damaged: its digest does not match; train again or copy it again."
        )
    return tensors


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, child in tree.items():
        if isinstance(child, Mapping):
            flat |= _flat(child, f"{prefix}{name}/")
        else:
            flat[prefix + name] = np.asarray(child)
    return flat
