"""A compiled program's text: its computations, and how often each of them runs.

The text can be a hundred megabytes, so it is read once, line by line. An instruction's line is

    [ROOT] %name = shape opcode(%operand, ...), attribute=value, ..., metadata={...}, ...
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_CALLED = re.compile(r"\b(calls|to_apply|condition|body|true_computation|false_computation)=%?")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_NAME = re.compile(r"%?([\w.\-]+)")
_ENDINGS = (", metadata=", ", frontend_attributes=", ", backend_config=", ", sharding=")
_BITS = re.compile(r"[a-z]+(\d+)")


class Instruction(NamedTuple):
    """One line; `rest` is what follows the opcode: operands and attributes."""

    name: str
    shape: str
    opcode: str
    rest: str
    trips: int | None  # of a while loop, where the compiler says it

    def operands(self) -> list[str]:
        """Names of the operands."""
        inside = self.rest[: _closing(self.rest)]
        return [part.rsplit("%", 1)[-1] for part in inside.split(", ") if part]

    def attribute(self, name: str) -> str | None:
        """The text of an attribute without spaces at its outermost level, None without it."""
        _, found, after = self.rest.partition(f", {name}=")
        return after[: _end_of_value(after)] if found else None

    def called(self) -> dict[str, str]:
        """{"body": computation, ...} of the computations that this runs."""
        found: dict[str, str] = {}
        if self.opcode in ("async-update", "async-done"):  # the start has run it
            return found
        for match in _CALLED.finditer(self.rest):
            found[match[1]] = _NAME.match(self.rest, match.end())[1]
        branches = self.attribute("branch_computations") or ""
        names = _NAME.findall(branches)
        return found | {f"branch {number}": name for number, name in enumerate(names)}


class Program(NamedTuple):
    """A program's computations, callees before callers, and what is known of all of them.

    Attributes:
        computations: {name: instructions}.
        shapes: {instruction: its shape's text}.
        entry: name of the computation that runs first.
    """

    computations: dict[str, list[Instruction]]
    shapes: dict[str, str]
    entry: str


class Runs(NamedTuple):
    """How often each computation runs, and how many loops' lengths are unknown: taken as one."""

    times: dict[str, int]
    unknown_loops: int


def read_program(text: str) -> Program:
    """Read `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    shapes: dict[str, str] = {}
    entry, current = "", None
    for line in _lines(text):
        if line.startswith(("%", "ENTRY")) and line.endswith("{"):
            name = _NAME.match(line.removeprefix("ENTRY "))[1]
            entry = name if line.startswith("ENTRY") else entry
            current = computations.setdefault(name, [])
        elif line.startswith(" ") and current is not None:
            instruction = _parse(line.lstrip())
            if instruction is not None:
                current.append(instruction)
                shapes[instruction.name] = instruction.shape
    return Program(computations, shapes, entry)


def count_runs(program: Program) -> Runs:
    """From the entry through calls, fusions, both branches of conditions, and loops."""
    times = dict.fromkeys(program.computations, 0)
    times[program.entry] = 1
    unknown = 0
    for name in reversed(program.computations):
        for instruction in program.computations[name]:
            called = instruction.called() if times[name] else {}
            length: int | None = 1
            if instruction.opcode == "while":
                length = instruction.trips or _counted(program, called["condition"])
                unknown += length is None
            for computation in called.values():
                times[computation] += times[name] * (length or 1)
    return Runs(times, unknown)


def array_bytes(shape: str) -> int:
    """Of an array, or of all arrays of a tuple, without the layout's padding."""
    return sum(_size(dims) * _bits(kind) // 8 for kind, dims in _ARRAY.findall(shape))


def array_shape(shape: str) -> tuple[int, ...]:
    """Sides of the (first) array."""
    match = _ARRAY.search(shape)
    return tuple(int(side) for side in match[2].split(",") if side) if match else ()


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _parse(line: str) -> Instruction | None:
    name, equals, right = line.removeprefix("ROOT ").partition(" = ")
    if not equals:
        return None
    cut = _closing(right, 1) + 1 if right.startswith("(") else right.find(" ")
    opcode, _, rest = right[cut:].lstrip().partition("(")
    trips = _TRIPS.search(rest) if opcode == "while" else None
    for ending in _ENDINGS:
        rest = rest.partition(ending)[0]
    return Instruction(
        name.removeprefix("%"), right[:cut], opcode, rest, int(trips[1]) if trips else None
    )


def _closing(text: str, start: int = 0) -> int:
    """Where the parenthesis closes that is open at `start`."""
    depth = 1
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    return len(text)


def _end_of_value(text: str) -> int:
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "{([") - (character in "})]")
        # Groups of a mesh have an unbracketed comma: mesh['x'=2], device_ids=([2]) {'x'}.
        if depth == 0 and text.startswith(", ", at) and not text.startswith(", device_ids=", at):
            return at
    return len(text)


def _counted(program: Program, condition: str) -> int | None:
    """The length of a loop that counts from 0 by 1 up to a constant, as those of JAX do."""
    instructions = {each.name: each for each in program.computations[condition]}
    for each in instructions.values():
        if each.opcode == "compare" and each.attribute("direction") == "LT":
            limit = instructions.get(each.operands()[1])
            if limit is not None and limit.opcode == "constant":
                return int(limit.rest.partition(")")[0])
    return None


def _size(dims: str) -> int:
    size = 1
    for side in dims.split(","):
        size *= int(side or 1)
    return size


def _bits(kind: str) -> int:
    """Of one element; what is no number (a token) has none."""
    match = _BITS.match(kind)
    return int(match[1]) if match else 8 * (kind == "pred")
