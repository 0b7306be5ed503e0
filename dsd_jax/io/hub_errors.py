"""Failures of the Hugging Face Hub's client in words: what happened, and the remedy."""

import huggingface_hub
from huggingface_hub import constants, errors

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


def fetch_failure(label: str, repo: str, error: Exception) -> str:
    """Return why something could not be fetched, as a sentence without its end.

    Args:
        label: what a user asked for, such as "org/name@revision".
        repo: "org/name".
        error: that the Hub's client raised.
    """
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


def push_failure(repo: str, error: Exception) -> str:
    """Return why something could not be written to `repo`, as a sentence without its end."""
    statuses = set(map(_status, _chain(error)))
    if isinstance(error, errors.HFValidationError):
        return f"'{repo}' is not a name for a repository on the Hub; expected org/name"
    if isinstance(error, errors.LocalTokenNotFoundError) or 401 in statuses:
        return f"the Hub lets nobody write to {repo} without a token; log in with `hf auth login`"
    if 403 in statuses:
        return f"your token may not write to {repo}; take one that may write, or a name of your own"
    return f"{repo} could not be written to on the Hub ({_cause(error)})"


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
