"""Wrong candidates of items, drawn by seed."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dsd_jax.errors import UserError

Candidate = TypeVar("Candidate")
Image = TypeVar("Image", bound=Hashable)  # the key of one
TRIES = 20  # per candidate, before the whole pool is looked through


class Negatives(NamedTuple):
    """The number of wrong candidates of each item, and the seed that they are drawn by."""

    count: int
    seed: int

    @classmethod
    def beside_right(cls, candidates: int, seed: int) -> "Negatives":
        """Return the negatives of items with `candidates` in all, the right one included.

        Raises:
            UserError: `candidates` is less than 2.
        """
        if candidates < 2:
            raise UserError(
                f"candidates is {candidates}; expected 2 or more, the right one included."
            )
        return cls(candidates - 1, seed)

    def draw(
        self,
        number: int,
        pool: Sequence[Candidate],
        is_wrong: Callable[[Candidate], bool],
        what: str,
    ) -> list[Candidate]:
        """Draw `count` different members of a pool for an item.

        Args:
            number: of the item; the draw depends on it and the seed.
            pool: what to draw from, each place as likely as any other.
            is_wrong: whether a member is wrong for the item.
            what: what the members are, for the message.

        Raises:
            UserError: the pool has not so many wrong members.
        """
        rng = np.random.default_rng([self.seed, number])
        # More than there are can't be found, and tries for them might not fit into memory.
        tries = TRIES * min(self.count, len(pool))
        places = rng.integers(len(pool), size=tries) if pool else ()
        drawn: list[Candidate] = []
        self._extend(drawn, (pool[i] for i in places), is_wrong)
        if len(drawn) < self.count and pool:
            self._extend(drawn, (pool[i] for i in rng.permutation(len(pool))), is_wrong)
        if len(drawn) < self.count:
            raise UserError(
                f"{self.count} wrong candidates are needed, and there are only {len(drawn)} "
                f"{what}; ask for fewer candidates or give more data."
            )
        return drawn

    def _extend(
        self,
        drawn: list[Candidate],
        candidates: Iterable[Candidate],
        is_wrong: Callable[[Candidate], bool],
    ) -> None:
        """Append candidates to those drawn until there are `count`."""
        for candidate in candidates:
            if len(drawn) == self.count:
                break
            if candidate not in drawn and is_wrong(candidate):
                drawn.append(candidate)

    def draw_captions(self, pairs: Sequence[tuple[Hashable, str]]) -> list[list[str]]:
        """Draw wrong captions for each pair of image and caption, from the other pairs.

        A caption that any pair gives to the same image is no wrong one.

        Raises:
            UserError: as `draw`.
        """
        pool = [caption for _, caption in pairs]
        return self._draw_each(pairs, pool, lambda pair, other: (pair[0], other), "other captions")

    def draw_images(self, pairs: Sequence[tuple[Image, str]]) -> list[list[Image]]:
        """Draw wrong images for each pair; an image with the same caption is no wrong one.

        Raises:
            UserError: as `draw`.
        """
        pool = [image for image, _ in pairs]
        return self._draw_each(pairs, pool, lambda pair, other: (other, pair[1]), "other images")

    def _draw_each(
        self,
        pairs: Sequence[tuple[Any, Any]],
        pool: Sequence[Any],
        with_other: Callable[[tuple[Any, Any], Any], tuple[Any, Any]],
        what: str,
    ) -> list[list[Any]]:
        """Draw for each pair from the pool what makes, put into it, no pair that is right."""
        right = set(pairs)
        return [
            self.draw(
                number,
                pool,
                lambda other, pair=pair: with_other(pair, other) not in right,
                what,
            )
            for number, pair in enumerate(pairs)
        ]
