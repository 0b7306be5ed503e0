"""Pictures that cannot be read: named and counted before hours of work, and fatal or left out."""

import sys
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor

from dsd_jax.data.examples import THREADS, Examples
from dsd_jax.errors import UserError

POLICIES = ("stop", "skip")
TOLD = 5  # damaged pictures that are named
SMALL = 8  # pixels; decoding is what takes time and what fails


def without_damaged(examples: Examples, name: str) -> Examples:
    """The items all of whose pictures can be read; how many others there are is told on stderr.

    Every picture is decoded once for this.

    Raises:
        UserError: none is left.
    """
    found = damaged(examples, name)
    if not found:
        return examples
    whole = [
        number
        for number, pictures in enumerate(examples.pictures)
        if not any(key in found for key in pictures)
    ]
    total = len({key for pictures in examples.pictures for key in pictures})
    told = "; ".join(list(found.values())[:TOLD]) + ("; ..." if len(found) > TOLD else "")
    counts = (
        f"{name}: {len(found):,} of {total:,} pictures cannot be read, and the "
        f"{examples.count - len(whole):,} of {examples.count:,} items with them are left out"
    )
    if not whole:
        raise UserError(f"{counts}, so that none remains: {told}")
    print(f"{counts}: {told}", file=sys.stderr)
    return examples.take(whole)


def damaged(examples: Examples, name: str) -> dict[Hashable, str]:
    """{key: what is wrong} of each picture that cannot be read."""
    from tqdm import tqdm

    def problem(key: Hashable) -> str | None:
        try:
            examples.read(key, SMALL)
        except UserError as error:
            return str(error)
        return None

    keys = list(dict.fromkeys(key for pictures in examples.pictures for key in pictures))
    with ThreadPoolExecutor(THREADS) as pool:
        told = tqdm(pool.map(problem, keys), f"{name}: looking at pictures", len(keys), leave=False)
        return {key: text for key, text in zip(keys, told, strict=True) if text}
