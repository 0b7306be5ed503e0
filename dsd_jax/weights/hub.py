"""Fetch models from the Hugging Face Hub, and of each only the files that are needed."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub import errors

from dsd_jax.errors import UserError
from dsd_jax.io.hub_errors import fetch_failure
from dsd_jax.models.components import Component
from dsd_jax.weights.component_files import choose, is_index, read_config, shards

_HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")
_TIMEOUT = 10  # seconds until the Hub counts as out of reach


class ModelKind(NamedTuple):
    """The layout of one kind of model on the Hub.

    Attributes:
        files: patterns of needed files that belong to no component.
        find_components: from a repository's subfolders and its name to the components to fetch.
        all_components: all components that there could be.
        noun: what such a model is called in messages.
        bundled: the name of the bundled one.
        layout: description of a folder with such a model.
    """

    files: Sequence[str]
    find_components: Callable[[Collection[str], str], tuple[Component, ...]]
    all_components: tuple[Component, ...]
    noun: str
    bundled: str
    layout: str


def fetch_named(where: Any, kind: ModelKind) -> Path:
    """Fetch the model that `where` names, "org/name" or "org/name@revision", as `fetch` does.

    Raises:
        UserError: it is no such name, or `fetch` refuses it.
    """
    hub_id = _HUB_ID.fullmatch(where) if isinstance(where, str) else None
    if hub_id is None:
        raise UserError(
            f"There is no {kind.noun} at '{where}'; expected \"{kind.bundled}\", {kind.layout}, or "
            'a model on the Hub as "org/name" or "org/name@revision".'
        )
    return fetch(hub_id[1], hub_id[2], kind)


def fetch(repo: str, revision: str | None, kind: ModelKind) -> Path:
    """Return the local cache's folder of `repo` (`org/name`), fetched if need be.

    Without a connection, and with HF_HUB_OFFLINE, what the cache has is used.

    Raises:
        UserError: there is no such model, no access to it, or neither a connection nor a copy.
    """
    label = f"{repo}@{revision}" if revision else repo
    try:
        patterns = _patterns(repo, revision, label, kind)
        small = [pattern for pattern in patterns if pattern.endswith(".json")]
        folder = Path(
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=small)
        )
        # Before gigabytes of a model that we can't use are fetched.
        for component in kind.find_components([entry.name for entry in folder.iterdir()], label):
            read_config(folder, component)
        return Path(
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns)
        )
    except errors.IncompleteSnapshotError as error:
        # Offline; the missing files of the repository may not be needed: the loader checks that.
        return Path(error.snapshot_path)
    except UserError:
        raise
    except Exception as error:  # the Hub's client lets its HTTP library's own errors through
        raise UserError(
            f"{fetch_failure(label, repo, error)}; or give {kind.layout} instead."
        ) from error


def needed(names: list[str], label: str, kind: ModelKind) -> list[str]:
    """Return patterns of the files from which a model is loaded, of all `names` in a repository."""
    folders = {name.partition("/")[0] for name in names if "/" in name}
    patterns = list(kind.files)
    for component in kind.find_components(folders, label):
        folder = _prefix(component)
        inside = [name.removeprefix(folder) for name in names if name.startswith(folder)]
        chosen = choose(inside, component, f"{label}/{folder}".removesuffix("/"))
        parts = [chosen, *shards(inside, chosen)] if is_index(chosen) else [chosen]
        patterns += [folder + name for name in ("config.json", *parts)]
        patterns += _tokenizer(component)
    return patterns


def _prefix(component: Component) -> str:
    """Return the start of the names of a component's files."""
    return "" if component.folder == "." else f"{component.folder}/"


def _tokenizer(component: Component) -> list[str]:
    return [f"{component.tokenizer}/*.{kind}" for kind in ("json", "txt") if component.tokenizer]


def _patterns(repo: str, revision: str | None, label: str, kind: ModelKind) -> list[str]:
    """Return the files to fetch, all possible ones where the Hub can't list those that it has."""
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise
    except Exception:  # no connection: `snapshot_download` looks into the cache, or says why not
        patterns = list(kind.files)
        for component in kind.all_components:
            suffixes = ("*.json", "*.safetensors", "*.msgpack")
            patterns += [_prefix(component) + suffix for suffix in suffixes]
            patterns += _tokenizer(component)
        return patterns
    return needed([sibling.rfilename for sibling in info.siblings or []], label, kind)
