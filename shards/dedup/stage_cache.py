"""Results of the stages beside the dataset, each under a key of what it was made from.

A file that was made from anything else, or is damaged, counts as not there. Kept out: what the bytes mean.
"""

import hashlib

from shards.dedup.removed import FOLDER
from shards.errors import MissingError
from shards.storage import store

KEY_BYTES = 32


def key_of(*parts: object) -> bytes:
    """The key of what is made from `parts`."""
    return hashlib.sha256(repr(parts).encode()).digest()


def save(url: str, name: str, key: bytes, data: bytes) -> None:
    """Keep `data` under `name` for `key`."""
    store.write_bytes(store.join(url, FOLDER, name), _seal(key, data) + data)


def load(url: str, name: str, key: bytes) -> bytes | None:
    """What was kept under `name` for this very `key`."""
    try:
        found = store.read_bytes(store.join(url, FOLDER, name))
    except MissingError:
        return None
    data = found[KEY_BYTES:]
    return data if found[:KEY_BYTES] == _seal(key, data) else None


def _seal(key: bytes, data: bytes) -> bytes:
    return hashlib.sha256(key + data).digest()
