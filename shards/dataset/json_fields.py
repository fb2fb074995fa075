"""Fields of untrusted JSON, each checked for type and range as it is taken out.

Kept out: what the fields mean. Every function raises ShardsError in one line that names field and file.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from shards.errors import ShardsError

MAX_INT = 2**53
"""Beyond this, JSON readers disagree about integers."""

MAX_DEPTH = 50
"""Of objects and lists within each other; deeper ones could not be written again."""


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object that `data` is."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ShardsError(f"{where} is not JSON ({error}); it is cut short or damaged") from error
    return as_object(found, "the whole file", where)


def as_object(value: object, name: str, where: str) -> dict[str, Any]:
    """`value`, which must be a JSON object."""
    if not isinstance(value, dict):
        raise _wrong(name, value, "an object", where)
    return value


def plain_object(fields: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The field `name`, an object of whatever can be written as JSON again, at most MAX_DEPTH deep."""
    found = as_object(fields.get(name), name, where)
    if not is_plain(found):
        raise _wrong(name, "something else", f"an object of plain values, at most {MAX_DEPTH} deep", where)
    return found


def is_plain(value: object) -> bool:
    """Whether `value` holds only texts in UTF-8 and finite numbers, at most MAX_DEPTH deep."""
    level = [value]
    for _ in range(MAX_DEPTH):
        if not all(_is_plain_one(each) for each in level):
            return False
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return True
    return False


def _is_plain_one(value: object) -> bool:
    if isinstance(value, str):
        return _is_utf8(value)
    return not isinstance(value, float) or math.isfinite(value)


def _inside(value: object) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _is_utf8(text: str) -> bool:
    """Whether `text` can be written: JSON can spell halves of signs, which are nothing alone."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def whole_number(
    fields: Mapping[str, Any], name: str, where: str, *, low: int = 0, high: int = MAX_INT
) -> int:
    """The integer field `name` in `[low, high]`."""
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(name, value, f"a whole number in [{low}, {high}]", where)
    return value


def text(fields: Mapping[str, Any], name: str, where: str, *, pattern: str = ".*") -> str:
    """The string field `name` that matches `pattern` whole."""
    value = fields.get(name)
    if not isinstance(value, str) or not re.fullmatch(pattern, value) or not _is_utf8(value):
        raise _wrong(name, value, "a text" if pattern == ".*" else f"a text like {pattern}", where)
    return value


def items(fields: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """The list field `name`."""
    value = fields.get(name)
    if not isinstance(value, list):
        raise _wrong(name, value, "a list", where)
    return value


def texts(fields: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """The field `name`, a list of strings."""
    values = items(fields, name, where)
    if not all(isinstance(value, str) and _is_utf8(value) for value in values):
        raise _wrong(name, values, "a list of texts", where)
    return tuple(values)


def rising(fields: Mapping[str, Any], name: str, where: str, *, below: int) -> tuple[int, ...]:
    """The field `name`, a list of rising whole numbers in `[0, below)`; empty where it is not given."""
    if name not in fields:
        return ()
    values, last = items(fields, name, where), -1
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not last < value < below:
            raise _wrong(name, values, f"a list of rising whole numbers below {below}", where)
        last = value
    return tuple(values)


def _wrong(name: str, value: object, rule: str, where: str) -> ShardsError:
    shown = "missing" if value is None else _short(value)
    return ShardsError(f"{where}: {name} is {shown}, not {rule}; the file is damaged or not ours")


def _short(value: object) -> str:
    try:
        shown = json.dumps(value)
    except RecursionError:
        return "nested too deeply"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
