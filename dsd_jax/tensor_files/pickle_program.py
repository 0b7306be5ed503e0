"""A pickle is a program; here it runs without the power to call anything but a given few functions.

Format: Python's `pickletools`. Only the instructions that `torch.save` writes are known.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

_PASSED_OVER = ("PROTO", "FRAME", "STOP")
_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")


class RefusedError(ValueError):
    """The program asks for what it does not get; the message is that."""


def run(
    stream: BinaryIO, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Runs the pickle that begins at the stream's position; the stream then stands behind it.

    Args:
        stream: a file, or bytes as one.
        names: what the program may name, as "module.name", and what it then gets.
        persistent: what to make of a persistent id.

    Raises:
        RefusedError: it names something else, or uses an instruction that tensors don't need.
        ValueError, LookupError, TypeError, AttributeError: it is damaged.
    """
    machine = _Machine(names, persistent)
    for opcode, argument, _ in pickletools.genops(stream):
        machine.step(opcode.name, argument)
    (result,) = machine.stack
    return result


class _Machine:
    """The stack and the memo, and what each instruction does to them."""

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None):
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _PUTS or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "BUILD":
            self.stack.pop()  # attributes, such as a state dict's _metadata: not needed
        elif name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            self.fill(name)
        elif name not in _PASSED_OVER:
            self.stack.append(self.value(name, argument))

    def value(self, name: str, argument: Any) -> Any:
        """What an instruction that makes a value puts on the stack."""
        if name in _LITERALS:
            return argument
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name in _GETS:
            return self.memo[argument]
        if name in _TUPLES or name == "TUPLE":
            return tuple(self.take(_TUPLES.get(name)))
        match name:
            case "EMPTY_DICT":
                return {}
            case "EMPTY_LIST":
                return []
            case "GLOBAL":
                return self.named(argument.replace(" ", "."))
            case "STACK_GLOBAL":
                return self.named(".".join(self.take(2)))
            case "REDUCE":
                function, arguments = self.take(2)
                return function(*arguments)
            case "BINPERSID":
                return self.persistent(self.stack.pop())
        raise RefusedError(f"uses the pickle instruction {name}")

    def named(self, name: str) -> Any:
        if name not in self.names:
            raise RefusedError(f"names {name}")
        return self.names[name]

    def take(self, count: int | None = None) -> list[Any]:
        """Takes the last `count` values, or all since the last mark."""
        if count is None:
            count = len(self.stack) - self.marks.pop()
        start = len(self.stack) - count
        if start < 0 or count < 0:
            raise IndexError("its stack is empty")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def fill(self, name: str) -> None:
        """Puts values into the dict or list that lies below them."""
        one = {"SETITEM": 2, "APPEND": 1}.get(name)
        values = self.take(one)
        if name.startswith("APPEND"):
            self.stack[-1].extend(values)
            return
        if not all(isinstance(key, str | int) for key in values[::2]):
            raise TypeError("a key that is neither a text nor a number")
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))
