"""The values that a pickle describes, without unpickling it: names stay names, calls stay calls.

Only what the batches of CIFAR-10 are made of is known; anything else is refused. Nothing is imported,
looked up or called. Kept out: what the values mean.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shards.errors import ShardsError


@dataclass
class Call:
    """`name(*arguments)` with a state, as a pickle spells an array; it is never made."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Name:
    """The module and name of something that a real unpickler would import."""

    text: str


MAX_CODES = 10**6
"""A batch of CIFAR-10 has about 40,000."""


class _Mark:
    """Where a run of values on the stack begins."""


def read_symbols(data: bytes, *, where: str) -> Any:
    """What `data` describes: plain values, bytes for texts of Python 2, and `Call`. Raises ShardsError."""
    stack: list[Any] = []
    memory: dict[Any, Any] = {}
    try:
        for code, argument in _codes(data):
            if code.name in CONSTANTS:
                stack.append(_plain(argument, code.name))
            elif code.name in ("BINPUT", "LONG_BINPUT"):
                memory[argument] = stack[-1]
            elif code.name in ("BINGET", "LONG_BINGET"):
                stack.append(memory[argument])
            elif code.name != "STOP":
                ACTIONS[code.name](stack)
        (found,) = stack
    except KeyError as error:
        raise ShardsError(f"{where} holds {error}, which no batch of CIFAR-10 does; it is refused") from error
    except (ValueError, TypeError, IndexError, AttributeError, StopIteration, MemoryError) as error:
        text = " ".join(str(error).split())[:100]
        raise ShardsError(f"{where} is cut short or damaged ({text}); download it again") from error
    return found


def _codes(data: bytes) -> Iterator[tuple[Any, Any]]:
    for number, (code, argument, _) in enumerate(pickletools.genops(data)):
        if number == MAX_CODES:
            raise ValueError(f"over {MAX_CODES} codes")
        yield code, argument


CONSTANTS = {
    "BININT",
    "BININT1",
    "BININT2",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINUNICODE",
    "BINBYTES",
    "SHORT_BINBYTES",
    "GLOBAL",
    "NONE",
    "NEWFALSE",
    "NEWTRUE",
}


def _plain(argument: Any, code: str) -> Any:
    if code == "GLOBAL":
        return Name(argument)
    if code in ("NEWFALSE", "NEWTRUE"):
        return code == "NEWTRUE"
    return argument.encode("latin-1") if code.endswith("BINSTRING") else argument


def _above_mark(stack: list[Any]) -> list[Any]:
    at = next(at for at in range(len(stack) - 1, -1, -1) if isinstance(stack[at], _Mark))
    found = stack[at + 1 :]
    del stack[at:]
    return found


def _append(stack: list[Any]) -> None:
    value = stack.pop()
    stack[-1].append(value)


def _appends(stack: list[Any]) -> None:
    values = _above_mark(stack)
    stack[-1].extend(values)


def _set_item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    stack[-1][_key(key)] = value


def _set_items(stack: list[Any]) -> None:
    values = _above_mark(stack)
    stack[-1].update(zip(map(_key, values[::2]), values[1::2], strict=True))


def _key(value: Any) -> Any:
    """Only these are looked up in no time, however they were made; others may be nested without end."""
    if not isinstance(value, (str, bytes, int)):
        raise ValueError(f"a {type(value).__name__} as a key")
    return value


def _tuple(length: int) -> Callable[[list[Any]], None]:
    def act(stack: list[Any]) -> None:
        values = tuple(stack[len(stack) - length :])
        del stack[len(stack) - length :]
        stack.append(values)

    return act


def _reduce(stack: list[Any]) -> None:
    arguments, name = stack.pop(), stack.pop()
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise ValueError("a call of something that is no name")
    stack.append(Call(name.text, arguments))


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    if not isinstance(stack[-1], Call):
        raise ValueError("a state for something that is no object")
    stack[-1].state = state


ACTIONS: dict[str, Callable[[list[Any]], None]] = {
    "PROTO": lambda stack: None,
    "MARK": lambda stack: stack.append(_Mark()),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "TUPLE": lambda stack: stack.append(tuple(_above_mark(stack))),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "REDUCE": _reduce,
    "BUILD": _build,
}
