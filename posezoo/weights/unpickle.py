"""A pickle is interpreted on a stack of our own: nothing that it names is imported or called.

What comes out is plain values, lists, tuples, dictionaries, and what the caller builds for the
names that it knows. Everything else that a pickle names becomes a `Foreign`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

__all__ = ["Foreign", "unpickle"]

_VALUES = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME"}


class Foreign:
    """Replaces an object that is not built; it takes anything and does nothing.

    Attributes:
        name: the class or function that the pickle names.
    """

    def __init__(self, name: str) -> None:
        self.name = name


def unpickle(
    file: IO[bytes], known: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Return what the pickle at the position of `file` holds, and leave the position behind it.

    Args:
        file: the pickle.
        known: for names `module.name` what they mean: a value, or a function to call.
        persistent: what to make of an object that is stored elsewhere, by its persistent id.

    Raises:
        ValueError and others: it is damaged, or uses what no PyTorch file uses.
    """
    machine = _Machine(known, persistent)
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "STOP":
            break
        machine.step(operation.name, argument)
    (content,) = machine.stack
    return content


class _Machine:
    """The stack, the marks in it, and the memo of a pickle."""

    def __init__(self, known: Mapping[str, Any], persistent: Callable[[Any], Any] | None) -> None:
        self.known, self.persistent = known, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one operation."""
        push, pop = self.stack.append, self.stack.pop
        if name in _VALUES:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("POP", "POP_MARK"):
            self.since_mark() if name == "POP_MARK" else pop()
        elif name == "DUP":
            push(self.stack[-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self.memo[argument])
        elif name in _LENGTHS:
            items = [pop() for _ in range(_LENGTHS[name])]
            push(tuple(reversed(items)))
        elif name == "GLOBAL":
            push(self.named(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            last, module = pop(), pop()
            push(self.named(f"{module}.{last}"))
        elif name in ("PERSID", "BINPERSID") and self.persistent is not None:
            push(self.persistent(pop() if name == "BINPERSID" else argument))
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"):
            self.call(name, argument)
        elif name == "BUILD":
            pop()  # attributes of objects are of no interest
        elif name not in _IGNORED:
            self.collect(name)

    def collect(self, name: str) -> None:
        """Make a collection, or add to one. Sets are not kept, nor keys that are no plain value:
        comparing them could take for ever."""
        if name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
            made: Any = {"EMPTY_LIST": [], "EMPTY_DICT": {}}.get(name, Foreign("set"))
            self.stack.append(made)
            return
        single = {"APPEND": 1, "SETITEM": 2}.get(name)
        items = self.since_mark() if single is None else self.stack[-single:]
        if single is not None:
            del self.stack[-single:]
        if name in ("TUPLE", "LIST", "FROZENSET"):
            kinds: dict[str, Any] = {"TUPLE": tuple, "LIST": list}
            self.stack.append(kinds[name](items) if name in kinds else Foreign("set"))
        elif name in ("APPEND", "APPENDS"):
            if isinstance(self.stack[-1], list):
                self.stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            if name == "DICT":
                self.stack.append({})
            if isinstance(self.stack[-1], dict):
                pairs = zip(items[::2], items[1::2], strict=True)
                self.stack[-1].update((k, v) for k, v in pairs if isinstance(k, (str, int)))
        elif name != "ADDITEMS":
            raise ValueError(f"the operation {name} occurs in no PyTorch file")

    def since_mark(self) -> list[Any]:
        """Take what is above the last mark from the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def named(self, name: str) -> Any:
        return self.known[name] if name in self.known else Foreign(name)

    def call(self, name: str, argument: Any) -> None:
        """Call what the caller knows; anything else becomes a `Foreign` of the same name."""
        if name in ("OBJ", "INST"):
            items = self.since_mark()
            function = self.named(argument.replace(" ", ".")) if name == "INST" else items.pop(0)
            arguments: Any = items
        else:
            if name == "NEWOBJ_EX":
                self.stack.pop()
            arguments = self.stack.pop()
            function = self.stack.pop()
        if isinstance(function, Foreign):
            self.stack.append(Foreign(function.name))
        else:
            self.stack.append(function(*arguments))
