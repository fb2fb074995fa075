"""Files of this machine for `store`: ranged reads on shared open files, and writes that are whole or absent.

Kept out: URLs and error messages, which are `store`'s; OSError leaves here as it came.
"""

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from typing_extensions import Buffer

from shards.storage.retries import LongError

OPEN_FILES = 64


def read_range(path: str, start: int, stop: int) -> bytes:
    """The bytes `[start, stop)`, or fewer where the file ends before."""
    file = _FILES.open(path)
    parts, at = [], start
    while at < stop and (part := os.pread(file.fd, stop - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def read_bytes(path: Path, limit_bytes: int | None) -> bytes:
    """The whole file. Raises LongError where it is longer than the limit, of which no more is read."""
    with path.open("rb") as file:
        data = file.read(-1 if limit_bytes is None else limit_bytes + 1)
    check_length(len(data), limit_bytes)
    return data


def check_length(length: int | None, limit_bytes: int | None) -> None:
    """Raises LongError where a file is longer than it may be."""
    if length is not None and limit_bytes is not None and length > limit_bytes:
        raise LongError(f"it has over {limit_bytes} bytes, which such a file cannot have")


def write_pieces(path: Path, pieces: Iterable[Buffer], *, private: bool = False) -> None:
    """Write beside `path`, flush to disk, rename: after a crash the old file or the new one is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            if private:
                os.fchmod(file.fileno(), 0o600)
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _FILES.forget(str(path))
    _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove the file, if it is there."""
    _FILES.forget(str(path))
    path.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _File:
    """An open file that closes when the last thread lets go of it."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class _Files:
    """The files read last, kept open, shared by all threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _File] = OrderedDict()

    def open(self, path: str) -> _File:
        with self._lock:
            file = self._open.pop(path, None) or _File(path)
            self._open[path] = file
            if len(self._open) > self._limit:
                self._open.popitem(last=False)
            return file

    def forget(self, path: str) -> None:
        with self._lock:
            self._open.pop(path, None)


_FILES = _Files(OPEN_FILES)
