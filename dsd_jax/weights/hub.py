"""Fetch models from the Hugging Face Hub, and of each only the files that are needed."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub import constants, errors

from dsd_jax.errors import UserError
from dsd_jax.models.components import Component
from dsd_jax.weights.component_files import choose, is_index, read_config, shards

_HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")
_TIMEOUT = 10  # seconds until the Hub counts as out of reach
# Remedies for HTTP's codes, where the Hub gives no reason of its own.
_STATUS = {
    401: "log in with `hf auth login`",
    403: "access is not allowed",
    429: "too many requests; wait some minutes, or log in with `hf auth login`",
    451: "not available for legal reasons",
    500: "the Hub has a fault; try again later",
    502: "the Hub has a fault; try again later",
    503: "the Hub is out of service; try again later",
    504: "the Hub is too slow; try again later",
}


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
        raise UserError(f"{_reason(label, repo, error)}; or give {kind.layout} instead.") from error


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


def _reason(label: str, repo: str, error: Exception) -> str:
    """Return why a model could not be fetched, as a sentence without its end."""
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{label} is gated: accept its terms at https://huggingface.co/{repo} and log in with "
            "`hf auth login`"
        )
    if 401 in map(_status, _chain(error)) and huggingface_hub.get_token():
        return (
            f"{label} could not be fetched: the Hub does not accept the token in HF_TOKEN or of "
            "`hf auth login`; take another one, or none"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the Hub has no public model {repo}: check the name, or log in if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no such revision ({label}): check the name after the @"
    if isinstance(error, errors.HFValidationError):
        return f"{label} is not a name of a model on the Hub (org/name or org/name@revision)"
    cause = _cause(error)
    if isinstance(error, errors.LocalEntryNotFoundError):
        failure = "refuses it" if any(map(_status, _chain(error))) else "can't be reached"
        return (
            f"{label} could not be fetched, because the Hub {failure} ({cause}), and the local "
            "cache does not have it"
        )
    return f"{label} could not be fetched from the Hub ({cause})"


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that the Hub answered with, if it did."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that it came from, the first of them last."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def _cause(error: Exception) -> str:
    """Return in words why the Hub did not answer, by the first error that has a status."""
    chain = _chain(error)
    for cause in chain:
        if (status := _status(cause)) is not None:
            headers = getattr(cause, "response").headers  # noqa: B009, the class is not known
            message = getattr(cause, "server_message", None) or headers.get("x-error-message")
            return f"HTTP {status}: {message or _STATUS.get(status, 'no reason is given')}"
    text = " ".join(map(str, chain))
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        return "its certificate is not trusted; is a proxy in between? SSL_CERT_FILE can name its"
    if any(isinstance(cause, ValueError) and "JSON" in type(cause).__name__ for cause in chain):
        return "it answered with something else than JSON; does a login page stand in between?"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    last = chain[-1] if isinstance(error, errors.LocalEntryNotFoundError) else error
    if isinstance(last, errors.LocalEntryNotFoundError):
        return "no network, or HF_HUB_OFFLINE is set"
    first_line = (str(last).strip() or type(last).__name__).split("\n")[0]
    return f"{type(last).__name__}: {first_line.removesuffix('.')}"
