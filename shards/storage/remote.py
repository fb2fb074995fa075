"""fsspec's file systems: one of each kind per process, every call with a limit of time.

Clients that try again by themselves are told not to, because `patience` does. Kept out: the lengths of reads.
"""

import hashlib
import io
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import fsspec
from fsspec.asyn import sync

from shards.errors import MissingError, StoreError
from shards.extras import install
from shards.storage import http
from shards.storage.retries import Counters, GaveUpError, Limits, one_line, patiently

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "adl": "az"}
BUCKETS = frozenset(EXTRAS)
"""Protocols where folders are only part of a name, inside a bucket that exists or does not."""

S3 = ("s3", "s3a")
SINGLE_PUT_BYTES = 100 * 2**20
"""What s3fs uploads in a single request; one of those carries its MD5, which the server checks."""

PART_TRIES = 3
"""Of each part of a large upload, so that one lost part does not repeat the file."""

JOINED_BYTES, PAUSE_SECONDS = 2**20, 1e-4
"""Copied at once, and how long other threads then have the interpreter's lock."""


class FileSystem:
    """One file system of fsspec, called from any thread with a limit of time."""

    def __init__(self, protocol: str, fs: Any) -> None:
        self.protocol, self.fs = protocol, fs

    def call(self, name: str, seconds: float, *args: Any, **settings: Any) -> Any:
        """What the method `name` returns. Raises TimeoutError after `seconds`."""
        if name in ("info", "ls"):
            self.fs.invalidate_cache()
        if getattr(self.fs, "async_impl", False):
            return sync(self.fs.loop, getattr(self.fs, f"_{name}"), *args, timeout=seconds, **settings)
        return _in_time(lambda: getattr(self.fs, name)(*args, **settings), seconds)


def find(url: str, limits: Limits, *, in_parts: bool = False) -> tuple[FileSystem, str]:
    """The file system of `url`, and the path in it. Raises StoreError where the protocol is not known."""
    protocol = url.partition("://")[0]
    try:
        return _find(url, protocol, limits, in_parts=in_parts)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        way_out = install(extra) if extra else one_line(error)
        raise StoreError(f"{url}: {protocol}:// needs a package that is not installed: {way_out}") from error
    except ValueError as error:
        raise StoreError(
            f"{url}: {protocol}:// is no kind of storage fsspec knows: {one_line(error)}"
        ) from error


def upload(url: str, data: bytes, limits: Limits, counters: Counters) -> None:
    """Put the file there whole. Raises MissingError without its bucket or folder, or GaveUpError."""
    protocol = url.partition("://")[0]
    single = len(data) < SINGLE_PUT_BYTES
    fs, path = find(url, limits, in_parts=not single)
    settings: dict[str, str] = {}
    if protocol in S3 and single:
        settings["ContentMD5"] = b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    try:
        patiently(
            lambda seconds: fs.call("pipe_file", seconds, path, data, **settings),
            limits,
            counters,
            size_bytes=len(data),
        )
    except FileNotFoundError as error:
        raise _no_bucket(fs, path) from error


def joined(pieces: Sequence[memoryview]) -> bytes:
    """All bytes of `pieces`, put together while other threads run, as one long copy would not let them."""
    found = io.BytesIO()
    for piece in pieces:
        for start in range(0, piece.nbytes, JOINED_BYTES):
            found.write(piece[start : start + JOINED_BYTES])
            time.sleep(PAUSE_SECONDS)
    return found.getvalue()


def find_bucket(url: str, limits: Limits, counters: Counters) -> None:
    """Nothing where the bucket is there, or where this account may not ask. Raises MissingError."""
    fs, path = find(url, limits)
    bucket = path.partition("/")[0]
    try:
        patiently(lambda seconds: fs.call("info", seconds, bucket), limits, counters)
    except FileNotFoundError as error:
        raise _no_bucket(fs, path) from error
    except GaveUpError as error:
        if not isinstance(error.error, PermissionError):
            raise


def forget() -> None:
    """Let go of every connection; the next call reads the environment anew."""
    _KNOWN.clear()


def _find(url: str, protocol: str, limits: Limits, *, in_parts: bool) -> tuple[FileSystem, str]:
    if "::" in url:  # a chain of file systems, which fsspec keeps itself
        fs, path = fsspec.core.url_to_fs(url)
        return FileSystem(protocol, fs), path
    kind = fsspec.get_filesystem_class(protocol)
    asked = kind._get_kwargs_from_urls(url)
    in_parts = in_parts and protocol in S3
    # A child of a fork must not use, nor close, the connections of its parent.
    key = (os.getpid(), protocol, repr(sorted(asked.items())), limits, in_parts)
    with _LOCK:
        if key not in _KNOWN:
            _KNOWN[key] = FileSystem(protocol, _make(kind, protocol, asked, limits, in_parts=in_parts))
        found = _KNOWN[key]
    return found, kind._strip_protocol(url)


def _make(kind: Any, protocol: str, asked: dict[str, Any], limits: Limits, *, in_parts: bool) -> Any:
    if protocol in ("http", "https"):
        told = fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
        return kind(**asked, client_kwargs=http.settings(dict(told)), skip_instance_cache=True)
    if protocol not in S3:
        return kind(**asked, skip_instance_cache=True)
    told = {name: value for each in S3 for name, value in fsspec.config.conf.get(each, {}).items()}
    ours = {
        "retries": {"mode": "standard", "total_max_attempts": PART_TRIES if in_parts else 1},
        "connect_timeout": limits.connect_seconds,
        "read_timeout": limits.read_seconds,
        # Its checksums come as a trailer, which other stores than AWS refuse over https.
        "request_checksum_calculation": "when_required",
        "max_pool_connections": 64,
    }
    settings = told | asked | {"config_kwargs": ours | dict(told.get("config_kwargs", {}))}
    fs = kind(**settings, use_listings_cache=False, skip_instance_cache=True)
    fs.retries = 1
    return fs


def _no_bucket(fs: FileSystem, path: str) -> StoreError:
    place = f"{fs.protocol}://{path}"
    if fs.protocol in BUCKETS:
        bucket = path.partition("/")[0]
        return MissingError(f"cannot write {place}: there is no bucket {bucket}; make it, or name another")
    return MissingError(f"cannot write {place}: its folder is not there")


def _in_time(call: Callable[[], Any], seconds: float) -> Any:
    """`call()` on a thread of its own, which is left behind where it takes longer."""
    results: list[Any] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # raised again by the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    return results[0]


def _after_fork() -> None:
    global _LOCK
    _LOCK = threading.Lock()  # another thread may have held it


_KNOWN: dict[Any, FileSystem] = {}
_LOCK = threading.Lock()
os.register_at_fork(after_in_child=_after_fork)
