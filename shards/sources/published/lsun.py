"""An LSUN category as its exporter wrote it: an LMDB of WebP or JPEG values under 40-digit hex keys.

Keys are listed without touching the values; each process opens the database for itself. Keys without a value,
which the objects' categories have, are failures of the build. Kept out: decoding, which looks at the bytes.
"""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from shards.errors import ImageError, ShardsError, StoreError
from shards.extras import install
from shards.sources.base import Item
from shards.sources.own.folder import MAX_FILE_BYTES

KEY_BYTES = 20
"""A key is 40 hex digits, which are 20 bytes."""


class Lsun:
    """The pictures of the LMDB folder `path`, by key."""

    classes: tuple[str, ...] = ()
    meta_bytes = 64

    def __init__(self, path: str) -> None:
        if not (Path(path) / "data.mdb").is_file():
            raise ShardsError(f"{path} has no data.mdb; give the folder that LSUN's zip unpacks to")
        self._path = str(Path(path).resolve())
        self._keys = _scan_apart(self._path)
        if not self._keys:
            raise ShardsError(f"{path} holds no pictures")

    @property
    def samples(self) -> int:
        """The number of keys."""
        return len(self._keys) // KEY_BYTES

    def settings(self) -> dict[str, Any]:
        """All keys as one checksum; a key of LSUN names its picture."""
        return {
            "source": "lsun",
            "images": self.samples,
            "keys_sha256": hashlib.sha256(self._keys).hexdigest(),
        }

    def item(self, position: int) -> Item:
        """The value of the key at `position`. Raises ImageError where it is empty or enormous."""
        key = self._keys[position * KEY_BYTES : (position + 1) * KEY_BYTES].hex()
        lmdb = _lmdb()
        try:
            with _open(self._path).begin(buffers=True) as transaction:
                value = transaction.get(key.encode())
                if not value:
                    raise ImageError(f"{key} has no value", "empty value")
                if len(value) > MAX_FILE_BYTES:
                    raise ImageError(f"{key} has over {MAX_FILE_BYTES} bytes", "too large")
                return Item(key, bytes(value))
        except lmdb.Error as error:
            raise StoreError(
                f"cannot read {key} of {self._path}: {error}; the build stops; mend the storage or unpack "
                f"LSUN's zip again, and the same command goes on"
            ) from error


def _lmdb() -> Any:
    try:
        import lmdb  # here and not at the top, because it is an extra
    except ImportError as error:
        raise ShardsError(f"lsun needs lmdb: {install('lsun')}") from error
    return lmdb


@lru_cache(maxsize=4)
def _open(path: str) -> Any:
    """The database, without a lock file. A truncated one is refused: reading it would kill the process."""
    lmdb = _lmdb()
    try:
        found = lmdb.open(path, readonly=True, lock=False, readahead=False, create=False, max_spare_txns=4)
        needed = (found.info()["last_pgno"] + 1) * found.stat()["psize"]
    except (lmdb.Error, OSError) as error:
        raise ShardsError(f"{path} is no LMDB, or damaged ({error}); unpack LSUN's zip again") from error
    size = (Path(path) / "data.mdb").stat().st_size
    if size < needed:
        found.close()
        raise ShardsError(f"{path}/data.mdb has {size} bytes of {needed}; it is cut: unpack LSUN's zip again")
    return found


def _scan_apart(path: str) -> bytes:
    """`_scan` in a process of its own: a damaged LMDB can kill whoever reads it."""
    _lmdb()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_scan, path).result()
        except BrokenProcessPool as error:
            raise ShardsError(f"{path} is damaged: it kills its reader; unpack LSUN's zip again") from error


def _scan(path: str) -> bytes:
    """All keys in the order of the LMDB, which is that of their bytes. Raises ShardsError for another key."""
    keys = bytearray()
    lmdb = _lmdb()
    try:
        with _open(path).begin() as transaction:
            for key in transaction.cursor().iternext(keys=True, values=False):
                try:
                    raw = bytes.fromhex(key.decode())
                except ValueError:
                    raw = b""
                if len(raw) != KEY_BYTES or len(key) != 2 * KEY_BYTES:
                    raise ShardsError(f"{path}: key {key[:60]!r} is not 40 hex digits; it is no LMDB of LSUN")
                keys += raw
    except lmdb.Error as error:
        raise ShardsError(f"{path} is damaged ({error}); unpack LSUN's zip again") from error
    return bytes(keys)
