"""Models on the Hugging Face Hub: fetches what is needed of one, and nothing else."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import constants, errors

from dsd_jax.errors import UserError
from dsd_jax.models.components import TEXT_2, Component, components
from dsd_jax.weights.component_configs import read_config
from dsd_jax.weights.component_files import choose, is_index, shards
from dsd_jax.weights.folder_layout import checked_components

LAYOUT = "a folder with unet/, vae/, text_encoder/, tokenizer/ and scheduler/"
_TIMEOUT = 10  # seconds until the Hub counts as out of reach
# What HTTP's codes mean here, where the Hub gives no reason of its own.
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


class Wanted(NamedTuple):
    """What is fetched of models of one kind.

    Attributes:
        small: files beside the components'.
        components: from a repository's subfolders and its name to what of it is needed.
        every: all components that there could be.
        layout: in words, what a folder with such a model has.
    """

    small: Sequence[str]
    components: Callable[[Collection[str], str], tuple[Component, ...]]
    every: tuple[Component, ...]
    layout: str


STABLE_DIFFUSION = Wanted(
    ("model_index.json", "scheduler/scheduler_config.json"),
    checked_components,
    components([TEXT_2.folder]),
    LAYOUT,
)


def fetch(repo: str, revision: str | None, what: Wanted = STABLE_DIFFUSION) -> Path:
    """The folder of a snapshot of `repo` (`org/name`) in the local cache, fetched if need be.

    Without a connection, and with HF_HUB_OFFLINE, what the cache has is used. `UserError` where
    that is nothing, and where there is no such model, or no access to it.
    """
    label = f"{repo}@{revision}" if revision else repo
    try:
        patterns = _patterns(repo, revision, label, what)
        small = [pattern for pattern in patterns if pattern.endswith(".json")]
        folder = Path(
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=small)
        )
        # Before gigabytes of a model that we can't use are fetched.
        for component in what.components([entry.name for entry in folder.iterdir()], label):
            read_config(folder, component)
        return Path(
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns)
        )
    except errors.IncompleteSnapshotError as error:
        # Offline; it misses files of the repository that we may well not need: others check that.
        return Path(error.snapshot_path)
    except UserError:
        raise
    except Exception as error:  # the Hub's client lets its HTTP library's own errors through
        raise UserError(f"{_reason(label, repo, error)}; or give {what.layout} instead.") from error


def needed(names: list[str], label: str, what: Wanted = STABLE_DIFFUSION) -> list[str]:
    """Those files of a repository, of all its `names`, from which a model is loaded."""
    folders = {name.partition("/")[0] for name in names if "/" in name}
    wanted = list(what.small)
    for component in what.components(folders, label):
        folder = _prefix(component)
        inside = [name.removeprefix(folder) for name in names if name.startswith(folder)]
        chosen = choose(inside, component, f"{label}/{folder}".removesuffix("/"))
        parts = [chosen, *shards(inside, chosen)] if is_index(chosen) else [chosen]
        wanted += [folder + name for name in ("config.json", *parts)]
        wanted += _tokenizer(component)
    return wanted


def _prefix(component: Component) -> str:
    """With what the names of its files begin."""
    return "" if component.folder == "." else f"{component.folder}/"


def _tokenizer(component: Component) -> list[str]:
    return [f"{component.tokenizer}/*.{kind}" for kind in ("json", "txt") if component.tokenizer]


def _patterns(repo: str, revision: str | None, label: str, what: Wanted) -> list[str]:
    """What to fetch; where the Hub can't be asked what it has, all that could be needed."""
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise
    except Exception:  # no connection: `snapshot_download` looks into the cache, or says why not
        ours, kinds = what.every, ("*.json", "*.safetensors", "*.msgpack")
        patterns = [f"{_prefix(component)}{kind}" for component in ours for kind in kinds]
        tokenizers = [file for component in ours for file in _tokenizer(component)]
        return [*what.small, *patterns, *tokenizers]
    return needed([sibling.rfilename for sibling in info.siblings or []], label, what)


def _reason(label: str, repo: str, error: Exception) -> str:
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
        answered = any(_status(one) for one in _chain(error))
        why = "refuses it" if answered else "can't be reached"
        return (
            f"{label} could not be fetched, because the Hub {why} ({cause}), and the local cache "
            "does not have it"
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
    """Return in words why the Hub could not be asked; the first error that tells is taken."""
    chain = _chain(error)
    for one in chain:
        if (status := _status(one)) is not None:
            said = getattr(one, "server_message", None) or one.response.headers.get(
                "x-error-message"
            )
            return f"HTTP {status}: {said or _STATUS.get(status, 'no reason is given')}"
    text = " ".join(str(one) for one in chain)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        return "its certificate is not trusted; is a proxy in between? SSL_CERT_FILE can name its"
    if any(isinstance(one, ValueError) and "JSON" in type(one).__name__ for one in chain):
        return "it answered with something else than JSON; does a login page stand in between?"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    last = chain[-1] if isinstance(error, errors.LocalEntryNotFoundError) else error
    first = (str(last).strip() or type(last).__name__).split("\n")[0].removesuffix(".")
    if isinstance(last, errors.LocalEntryNotFoundError):
        return "no network, or HF_HUB_OFFLINE is set"
    return f"{type(last).__name__}: {first}"
