"""Run folders that may come from somebody else: nothing in them leads out of them.

A link is followed only to what lies in the same run folder, and only plain files of a bounded length are
read. Kept out: what the files mean. Training does not ask here: its run folder is the user's own.
"""

import math
from pathlib import Path
from typing import Any

from shards import ShardsError
from shards.errors import MissingError
from shards.storage import store

MOST_BYTES = 2**28
"""Of a file that is read whole; weights are not, which are read by their manifest."""

WRONG = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What comes of JSON that is not of the form it should have."""


def within(run: str, *names: str) -> str:
    """The URL of a file or folder of a run, whether it is there or not.

    Raises ShardsError where a link leads out of the run folder, or where there is neither file nor folder.
    """
    url = store.join(run, *names)
    if not store.is_local(url):
        return url
    place, root = _path(url), _path(run)
    try:
        inside = place.resolve().is_relative_to(root.resolve())
        plain = place.is_file() or place.is_dir() or not place.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that cannot be one
        raise ShardsError(f"{url} cannot be looked at: {error}") from None
    if not inside:
        raise ShardsError(
            f"{url} leads out of the run folder, which may be somebody else's; copy what it leads to into it"
        )
    if not plain:
        raise ShardsError(f"{url} is neither a file nor a folder; remove it")
    return url


def folder(run: str, name: str) -> str:
    """The URL of a folder of a run, nothing in which leads out of the run. Raises ShardsError."""
    url = within(run, name)
    if store.is_local(url) and _path(url).is_dir():
        for path in _path(url).iterdir():
            if not path.is_file() or path.is_symlink():
                within(run, name, path.name)
    return url


def read(run: str, *names: str) -> bytes:
    """A file of a run. Raises ShardsError, MissingError where it is not there."""
    url = within(run, *names)
    if store.is_local(url):
        place = _path(url)
        if not place.exists():
            raise MissingError(f"cannot read {url}: it is not there")
        if place.stat().st_size > MOST_BYTES:
            raise ShardsError(f"{url} has more than {MOST_BYTES} bytes; it is none of ours")
    return store.read_bytes(url)


def typed(value: Any, *kinds: type) -> Any:
    """`value`, which is of one of these types and no other. Raises TypeError."""
    if type(value) not in kinds:
        raise TypeError(f"{type(value).__name__} where {kinds[0].__name__} is wanted")
    return value


def finite(value: Any) -> float | None:
    """A finite number, or None. Raises TypeError, ValueError, OverflowError."""
    if value is None:
        return None
    found = float(typed(value, float, int))
    if not math.isfinite(found):
        raise ValueError("a number that is not finite")
    return found


def _path(url: str) -> Path:
    return Path(url.removeprefix("file://"))
