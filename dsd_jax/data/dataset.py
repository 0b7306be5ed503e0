"""Items one by one, as the readers of benchmarks find them, made into `Examples`."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

import numpy as np

from dsd_jax.data.examples import Examples

MAX_KINDS = 40  # more are no table that anybody reads: they become one


class Row(NamedTuple):
    """One item, as `Examples` has n of them."""

    captions: tuple[str, ...]
    pictures: tuple[Hashable, ...]
    kind: str
    cluster: Hashable


def to_examples(rows: Iterable[Row], read: Callable[[Hashable, int], np.ndarray]) -> Examples:
    """Rows in order; kinds that are absent or more than `MAX_KINDS` become one, "all"."""
    rows = list(rows)
    columns = zip(*rows, strict=True) if rows else [()] * len(Row._fields)
    captions, pictures, kinds, clusters = (list(column) for column in columns)
    if not all(kinds) or len(set(kinds)) > MAX_KINDS:
        kinds = ["all"] * len(rows)
    return Examples(captions, pictures, kinds, clusters, read)


def kind_counts(examples: Examples) -> dict[str, int]:
    """{kind: number of items}, in the order in which kinds first occur."""
    return dict(Counter(examples.kinds))
