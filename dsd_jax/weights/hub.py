"""Models on the Hugging Face Hub: fetches what is needed of one, and nothing else."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import errors

from dsd_jax.errors import UserError
from dsd_jax.weights.component import TEXT_2, Component, components
from dsd_jax.weights.configs import read_config
from dsd_jax.weights.files import choose, is_index, shards
from dsd_jax.weights.layout import checked_components

LAYOUT = "a folder with unet/, vae/, text_encoder/, tokenizer/ and scheduler/"
_TIMEOUT = 10  # seconds until the Hub counts as out of reach


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
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the Hub has no public model {repo}: check the name, or log in if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no such revision ({label}): check the name after the @"
    if isinstance(error, errors.HFValidationError):
        return f"{label} is not a name of a model on the Hub (org/name or org/name@revision)"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"{label} could not be fetched, because the Hub can't be reached (no network, or "
            "HF_HUB_OFFLINE is set), and the local cache does not have it"
        )
    first = str(error).strip().split("\n")[0]
    return f"{label} could not be fetched from the Hub ({type(error).__name__}: {first})"
