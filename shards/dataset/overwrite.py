"""Whose files lie where something is to be written: what is not ours is neither removed nor replaced unasked.

A build leaves a mark before its first file, so that one that was stopped knows its own. Kept out: writing.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shards.dataset.index import INDEX_NAME
from shards.errors import ShardsError
from shards.storage import store
from shards.tars.records import compact_json

BEGUN_NAME = "build.begun.json"
OPENING = b'{\n"version": '
"""How an index of ours begins."""

WRITTEN = r"shard-\d{6}\.(tar|idx|done\.json)|part-\d{6}-of-\d{6}\.json"
WRITTEN_TOO = r"blocks\.npy|report\.json|sheet\.png|failures\.json"
"""The files of a build, its index apart."""


def begin(out_url: str, settings: dict[str, Any]) -> None:
    """Leave the mark that a build has begun at `out_url`."""
    where = store.join(out_url, BEGUN_NAME)
    if not store.exists(where):
        store.write_bytes(where, compact_json({"settings": settings}))


def check_free(out_url: str) -> None:
    """Raise ShardsError where files lie that a build would replace or remove, and no build has begun."""
    names = [name for name in store.sizes_if_any(out_url) if re.fullmatch(f"{WRITTEN}|{WRITTEN_TOO}", name)]
    if names and not store.exists(store.join(out_url, BEGUN_NAME)):
        raise not_ours(out_url, names)


def not_ours(out_url: str, names: list[str]) -> ShardsError:
    """What to say where `names` would be replaced or removed."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
    return ShardsError(
        f"{out_url} already holds {shown}, which are not known to be ours and would be replaced or removed; "
        f"choose another folder, or give --overwrite"
    )


def check_apart(in_url: str, out_url: str) -> None:
    """Raise ShardsError where what is written to `out_url` would replace what is read from `in_url`."""
    if is_same(in_url, out_url):
        raise ShardsError(f"{in_url} and {out_url} are the same place; give another one to write to")
    for path in _files(in_url):
        real = path.resolve()
        if re.fullmatch(f"{WRITTEN}|{WRITTEN_TOO}", real.name) and is_same(str(real.parent), out_url):
            raise ShardsError(
                f"{path} lies in {out_url} under a name that is written there; give another place to write to"
            )


def is_same(one: str, other: str) -> bool:
    """Whether two URLs name one place, through links or other spellings too."""
    if store.is_local(one) and store.is_local(other):
        paths = [Path(url.removeprefix("file://")).resolve() for url in (one, other)]
        return paths[0] == paths[1] or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
    return _spelled(one) == _spelled(other)


def holds_dataset(folder: Path) -> bool:
    """Whether a dataset of ours lies in the local `folder`, a build that has begun too."""
    if (folder / BEGUN_NAME).exists():
        return True
    try:
        with (folder / INDEX_NAME).open("rb") as file:
            return file.read(len(OPENING)) == OPENING
    except OSError:
        return False


def _spelled(url: str) -> tuple[str, str]:
    protocol, _, path = url.rpartition("://")
    return "s3" if protocol == "s3a" else protocol, posixpath.normpath(f"/{path.strip('/')}")


def _files(url: str) -> Iterator[Path]:
    """The local file at `url`, or the links that lie directly in its folder."""
    path = Path(url.removeprefix("file://"))
    if not store.is_local(url):
        return
    if path.is_dir():
        yield from (each for each in path.iterdir() if each.is_symlink())
    else:
        yield path
