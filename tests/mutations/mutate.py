"""What all tests of changed inputs share: odd values, changes at random, and one input's trial."""

import contextlib
import json
import os
import pickle
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dsd_jax.errors import UserError

LONGEST = 30  # seconds for one input
DEEP = [[]]
for _ in range(200):
    DEEP = [DEEP]
ODD = [
    None, True, False, 0, -1, 1.0, 1e400, float("nan"), 10**30, 10**4000, [], {}, [[]], [1], ["a"],
    {"a": 1}, DEEP, "", " ", "7", "\u0663", "\u00b2", "a" * 300, "a\0b", "a\nb", "\ud83d", "{} {",
    "../../etc/passwd", "/dev/zero", "{0.__class__}",
]  # fmt: skip
NUMBERS = [2, 3, 7, 16, 64, 77, 1000, 10**6, 2**31, 2**64, 10**13, 0.5, 1e-5, 1e39, -0.0, 5e-324]


def count(usual: int) -> int:
    """How many inputs to try of a kind: `DSD_MUTATIONS`, or a usual number that is quick."""
    return int(os.environ.get("DSD_MUTATIONS", usual))


def generator(kind: str) -> random.Random:
    """What draws the inputs of a kind; `DSD_MUTATIONS_SEED` makes it draw others."""
    return random.Random(kind + os.environ.get("DSD_MUTATIONS_SEED", ""))


def places(value, place=()):
    """The paths of all values in lists and objects."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*place, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*place, key))


def mutated(rng: random.Random, content: Any, odd: list = ODD) -> Any:
    """A copy with one value replaced, left out, doubled or renamed; another one half the time."""
    content = pickle.loads(pickle.dumps(content))
    for _ in range(rng.choice((1, 1, 2))):
        *path, last = rng.choice(list(places(content)))
        inner = content
        for key in path:
            inner = inner[key]
        what = rng.random()
        if what < 0.75:
            inner[last] = rng.choice(odd)
        elif what < 0.9:
            del inner[last]
        elif isinstance(inner, list):
            inner.append(inner[last])
        else:
            inner[f"{last}s"] = inner.pop(last)
        if not content:
            break
    return content


PIECES = [
    '"', '""', ",", "\n", "\r", "\r\n", '\\"', "\\", "\0", "\ufeff", "\u00e9", "\u2028", ";",
]  # fmt: skip


def garbled(rng: random.Random, content: bytes) -> bytes:
    """Some bytes inserted, replaced, deleted, doubled, or the rest cut off."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(content) + 1)
        what = rng.random()
        if what < 0.6:
            content[place:place] = rng.choice(PIECES).encode()
        elif what < 0.75:
            content[place : place + 1] = bytes([rng.randrange(256)])
        elif what < 0.9:
            del content[place : place + rng.choice((1, 3, 40))]
        elif what < 0.95:
            content = content[:place]
        else:
            content[place:place] = content[place : place + 50]
    return bytes(content)


def dumped(value: Any) -> str:
    """JSON of it, with numbers of any length."""
    try:
        return json.dumps(value)
    except ValueError:  # a whole number of too many digits
        return '{"image": ' + "9" * 5000 + "}"


def header_of(content: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(text: bytes, rest: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text + rest


def mutated_header(rng: random.Random, content: bytes) -> bytes:
    header, rest = header_of(content)
    names = sorted(header.keys() - {"__metadata__"})
    names_of_few = rng.sample(names, 4)
    few = {name: header[name] for name in names_of_few}
    what = rng.random()
    if what < 0.6:
        few = mutated(rng, few, [*ODD, *NUMBERS, "F16", "I64", "F8_E4M3"])
    elif what < 0.7:  # two change places, perhaps of the same shape
        one, other = rng.choice(
            [(x, y) for x in names for y in names if header[x]["shape"] == header[y]["shape"]]
            + [rng.sample(names, 2)] * 20
        )
        few, names_of_few = {one: header[other], other: header[one]}, [one, other]
    elif what < 0.8:  # offsets of another tensor, or moved
        one, other = rng.sample(sorted(few), 2)
        begin, end = few[other]["data_offsets"]
        few[one]["data_offsets"] = rng.choice((
            [begin, end], [end, begin], [begin + 2, end + 2], [float(begin), end], [0, len(rest)],
        ))  # fmt: skip
    else:
        few[sorted(few)[0]]["shape"] = rng.choice(([-1, -1], [2**40, 2**40], [0], [], [1] * 300))
    kept = {name: value for name, value in header.items() if name not in names_of_few}
    text = dumped({**kept, **few}).encode()
    length = rng.choice([None] * 9 + [0, 7, len(text) - 1, 2**63, 2**64 - 1])
    return with_header(text, rest, length)


def snapshot(folder: Path) -> dict[str, Any]:
    """Everything in a folder, links not followed: bytes of files, targets of links."""
    return {
        str(place.relative_to(folder)): os.readlink(place)
        if place.is_symlink()
        else place.read_bytes()
        if place.is_file()
        else "a folder"
        if place.is_dir()
        else "something else"
        for place in sorted(folder.rglob("*"))
    }


class Trials:
    """A count of a kind's inputs, and how they ended."""

    def __init__(self):
        self.taken = self.refused = 0

    def add(self, *, refused: bool) -> None:
        """Count an input that was tried elsewhere."""
        self.refused += refused
        self.taken += not refused

    def __call__(self, load: Callable[..., Any], *args: Any) -> Any:
        """What it returns, or None where one sentence says why there is nothing."""
        try:
            with limited():
                result = load(*args)
        except UserError as error:
            sentence, *listed = str(error).split("\n")  # what does not fit follows in lines
            assert sentence.strip() and len(sentence) < 1500, sentence
            assert not listed or sentence.endswith(":"), listed
            self.refused += 1
            return None
        self.taken += 1
        return result


class TooLong(BaseException):
    """No `Exception`: nothing that is tried may take it for another error."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """A `TooLong` where what is inside takes longer than `LONGEST`."""

    def late(*_) -> None:
        raise TooLong(f"it takes more than {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
