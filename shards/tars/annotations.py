"""What the `.json` and the `.cls` of a sample say, wherever their tar comes from.

Kept out: which files are one sample, which is `tar`'s.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from shards.errors import ShardsError

MAX_CLASSES = 10**6
MAX_DEPTH = 500
"""JSON nested deeper is refused, because it could be read and not be written again."""


def parse_meta(
    data: bytes, key: str, *, on_odd_number: Callable[[str], object] | None = None
) -> dict[str, Any]:
    """The object in the `.json` of sample `key`, empty where there are blanks alone. Raises ShardsError.

    NaN and infinite numbers, which many write and JSON has not, are told to `on_odd_number` and read as null.
    """
    if not data.strip():
        return {}
    # Python's own reading of numbers is several times as fast as ours, which only large ones need.
    encoding = json.detect_encoding(data)
    plain = not on_odd_number and encoding == "utf-8" and not (_LARGE.search(data) or _LONG.search(data))
    try:
        found = (_PLAIN if plain else _decoder(on_odd_number)).decode(data.decode(encoding, "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise ShardsError(f"sample {key}: its .json member is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ShardsError(f"sample {key}: its .json member is not a JSON object")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(found, key)
    return found


def _decoder(on_odd_number: Callable[[str], object] | None) -> json.JSONDecoder:
    def number(text: str) -> float | None:
        value = float(text)
        if not math.isfinite(value):
            if on_odd_number:
                on_odd_number(text)
            return None
        return value

    return json.JSONDecoder(parse_constant=number, parse_float=number)


_PLAIN = json.JSONDecoder(parse_constant=lambda text: None)
_LARGE, _LONG = re.compile(rb"[eE][+]?[0-9]{3}"), re.compile(rb"[0-9]{300}")
"""Numbers that may be too large for a float."""


def label_of(meta: Mapping[str, Any], cls: bytes | None) -> int | None:
    """The whole number below 10**6 in `label` of the `.json`, else in the `.cls`; None without one."""
    value = meta.get("label")
    if type(value) is int and 0 <= value < MAX_CLASSES:
        return value
    text = (cls or b"").strip()
    return int(text) if text.isdigit() and len(text) < 16 and int(text) < MAX_CLASSES else None


def _check_depth(value: object, key: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [each for each in level if isinstance(each, dict | list)]
        level = [one for each in inner for one in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return
    raise ShardsError(f"sample {key}: its .json member is not JSON to keep: nested over {MAX_DEPTH} deep")
