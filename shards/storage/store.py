"""The one place that touches storage: local folders and any fsspec URL, by whole files and byte ranges.

A file is whole or absent; a read returns the bytes asked for or raises; every call on remote storage ends in
bounded time, see `Limits`. URLs are `str`, because a Path turns `s3://b` into `s3:/b`. Kept out: what the
bytes mean.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from shards.errors import DamagedError, MissingError, StoreError
from shards.storage import local, remote
from shards.storage.remote import FileSystem
from shards.storage.retries import (
    Counters,
    Counts,
    GaveUpError,
    HopelessError,
    Limits,
    LongError,
    ShortError,
    SumError,
    is_storage_error,
    one_line,
    patiently,
)

__all__ = [
    "Counters",
    "Counts",
    "LIMITS",
    "Limits",
    "counters",
    "exists",
    "forget_connections",
    "is_local",
    "join",
    "make_folder",
    "read_bytes",
    "read_range",
    "remove",
    "sizes",
    "sizes_if_any",
    "state",
    "write_bytes",
    "write_pieces",
]

T = TypeVar("T")

LIMITS = Limits()
"""The patience of this process with remote storage."""

counters = Counters()
"""What this process asked of storage, for whoever shows it: `counters.snapshot()`."""

VERSION_NAMES = ("size", "ETag", "etag", "md5Hash", "LastModified", "mtime", "last_modified")
"""What file systems tell of a file that another version of it has not."""

SMALL_BYTES = 2**26
"""More than an index, a manifest or settings have: the index of three million pictures has a third of a MB,
and 24 MB with all of them marked as removed."""

PIECE_BYTES = 2**25
"""A larger file is read in pieces of this length, so that a lost connection does not cost all of it."""


def is_local(url: str) -> bool:
    """Whether `url` is a path of this machine, plain or `file://`."""
    return "://" not in url or url.startswith("file://")


def join(url: str, *names: str) -> str:
    """`url/name/...`, with one slash between; not for an empty `url`, which would be `/name`."""
    if not url:
        raise StoreError(f"an empty path holds no {names[0]}; give a folder or URL")
    return f"{url}{'' if url.endswith('/') else '/'}{'/'.join(names)}"


def exists(url: str) -> bool:
    """Whether a file or folder is at `url`."""
    with _as_store_error("look for", url):
        if is_local(url):
            return _path(url).exists()
        try:
            _ask(url, "info")
        except FileNotFoundError:
            return False
        return True


def state(url: str) -> dict[str, Any]:
    """What tells one version of the file from another, as JSON: its bytes, and when it was written."""
    with _as_store_error("look for", url):
        if is_local(url):
            found = _path(url).stat()
            return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
        told = _ask(url, "info")
        return {name: str(told[name]) for name in VERSION_NAMES if told.get(name) is not None}


def sizes(url: str) -> dict[str, int]:
    """The bytes of each file that lies directly in the folder `url`, by name, sorted."""
    with _as_store_error("list", url):
        if is_local(url):
            with os.scandir(_path(url)) as entries:
                found = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        else:
            rows: list[dict[str, Any]] = _ask(url, "ls", detail=True)
            files = {row["name"].rpartition("/")[2]: row["size"] for row in rows if row["type"] == "file"}
            # A web server's listing has names only.
            found = {
                name: _size(join(url, name)) if size is None else int(size) for name, size in files.items()
            }
    return dict(sorted(found.items()))


def sizes_if_any(url: str) -> dict[str, int]:
    """`sizes`, and nothing for a folder that is not there: in a bucket, one without files is none."""
    try:
        return sizes(url)
    except MissingError:
        return {}


def read_bytes(
    url: str, *, check: Callable[[bytes], bool] | None = None, limit_bytes: int | None = None
) -> bytes:
    """The whole file, as it was at one moment. Raises StoreError where it changes all the while.

    One that is longer than `limit_bytes` is refused with DamagedError, and no more of it is read.
    Bytes that `check` denies are asked for again, because a bit may flip on the way, and then refused with
    DamagedError.
    """
    with _as_store_error("read", url):
        if is_local(url):
            data = local.read_bytes(_path(url), limit_bytes)
            counters.add(requests=1, read_bytes=len(data))
            return _checked(data, check)
        found = None
        for _ in range(LIMITS.tries):
            told = _ask(url, "info")
            local.check_length(told.get("size"), limit_bytes)
            found = _read_state(url, told)
            local.check_length(len(found or b""), limit_bytes)
            if found is not None and (not check or check(found)):
                return found
            counters.add(retries=1)
        if found is not None:
            return _checked(found, check)
        raise HopelessError("its length is never what the storage says; is it being written?")


def read_range(url: str, start: int, stop: int, *, check: Callable[[bytes], bool] | None = None) -> bytes:
    """Exactly the bytes `[start, stop)`. Raises StoreError where the file ends before.

    Bytes that `check` denies are asked for again, because a bit may flip on the way, and then refused with
    DamagedError.
    """
    assert 0 <= start <= stop, (start, stop)
    with _as_store_error(f"read bytes {start} to {stop} of", url):
        if is_local(url):
            data = local.read_range(url.removeprefix("file://"), start, stop)
            counters.add(requests=1, read_bytes=len(data))
            return _checked(_exact(data, start, stop), check)
        if start == stop:
            return b""  # some servers answer an empty range with the whole file
        return _read_range(url, start, stop, check)


def write_bytes(url: str, data: bytes, *, private: bool = False) -> None:
    """Put the file there whole; on any failure the old one, or none, is there as before.

    On this machine a `private` one is for its owner alone.
    """
    with _as_store_error("write", url):
        if is_local(url):
            local.write_pieces(_path(url), [data], private=private)
            counters.add(requests=1)
        else:
            remote.upload(url, data, LIMITS, counters)
        counters.add(written_bytes=len(data))


def write_pieces(url: str, pieces: Sequence[memoryview]) -> None:
    """`write_bytes` of what lies in many places, which on this machine is not copied together."""
    if not is_local(url):
        write_bytes(url, remote.joined(pieces))
        return
    with _as_store_error("write", url):
        local.write_pieces(_path(url), pieces)
        counters.add(requests=1, written_bytes=sum(piece.nbytes for piece in pieces))


def remove(url: str) -> None:
    """Remove the file, if it is there."""
    with _as_store_error("remove", url):
        if is_local(url):
            local.remove(_path(url))
        elif exists(url):
            try:
                _ask(url, "rm_file")
            except FileNotFoundError:  # by another, or by a try of ours whose answer was lost
                return


def make_folder(url: str) -> None:
    """Make the folder and those above it, if they are not there; a bucket must be there."""
    with _as_store_error("make the folder", url):
        if is_local(url):
            _path(url).mkdir(parents=True, exist_ok=True)
        elif _protocol(url) not in remote.BUCKETS:
            _ask(url, "makedirs", exist_ok=True)
        elif _protocol(url) in remote.S3:
            remote.find_bucket(url, LIMITS, counters)


def forget_connections() -> None:
    """Let go of every connection to remote storage; the next call reads the environment anew."""
    remote.forget()


def _path(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def _protocol(url: str) -> str:
    return url.partition("://")[0]


def _remote(url: str, *, in_parts: bool = False) -> tuple[FileSystem, str]:
    return remote.find(url, LIMITS, in_parts=in_parts)


def _ask(url: str, name: str, *, size_bytes: int = 0, **settings: Any) -> Any:
    """What the file system's method `name` says of `url`, in an answer of about `size_bytes`."""
    fs, path = _remote(url)
    return patiently(
        lambda seconds: fs.call(name, seconds, path, **settings), LIMITS, counters, size_bytes=size_bytes
    )


def _size(url: str) -> int:
    return int(_ask(url, "info")["size"] or 0)


def _read_state(url: str, state: dict[str, Any]) -> bytes | None:
    """The file that `info` told this of, or None where it came short or has changed since."""
    if state.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    size = state.get("size")
    if size is not None and size > PIECE_BYTES:
        return _read_pieces(url, state)
    if size == 0:
        return b""
    # One byte more than there should be, so that a file that has grown is not taken for its beginning.
    span = {} if size is None else {"start": 0, "end": size + 1}
    data = bytes(_ask(url, "cat_file", size_bytes=size or PIECE_BYTES, **span))
    counters.add(read_bytes=len(data))
    return data if size in (None, len(data)) else None


def _read_pieces(url: str, state: dict[str, Any]) -> bytes | None:
    size = int(state["size"])
    starts = range(0, size, PIECE_BYTES)
    try:
        pieces = [_read_range(url, start, min(start + PIECE_BYTES, size), None) for start in starts]
    except GaveUpError:
        if _same(state, _ask(url, "info")):
            raise
        return None
    return b"".join(pieces) if _same(state, _ask(url, "info")) else None


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers of `info` tell of the same bytes."""
    return all(one.get(name) == other.get(name) for name in VERSION_NAMES)


def _read_range(url: str, start: int, stop: int, check: Callable[[bytes], bool] | None) -> bytes:
    fs, path = _remote(url)

    def ask(seconds: float) -> bytes:
        try:
            data = bytes(fs.call("cat_file", seconds, path, start=start, end=stop))
            counters.add(read_bytes=len(data))
            return _checked(_exact(data, start, stop), check)
        except OSError as error:
            # A file that is too short answers with fewer bytes, or calls the range invalid.
            if isinstance(error, ShortError) or error.errno == errno.EINVAL:
                _expect_size(fs.call("info", seconds, path), stop)
            raise

    return patiently(ask, LIMITS, counters, size_bytes=stop - start)


def _expect_size(state: dict[str, Any], stop: int) -> None:
    size = state.get("size")
    if size is not None and int(size) < stop:
        raise HopelessError(f"it has {size} bytes; the file is shorter than its index says")


def _exact(data: bytes, start: int, stop: int) -> bytes:
    if len(data) > stop - start:
        raise HopelessError(f"got {len(data)} bytes, not {stop - start}; this server gives no byte ranges")
    if len(data) < stop - start:
        raise ShortError(
            f"got {len(data)} bytes, not {stop - start}; the file is shorter than its index says"
        )
    return data


def _checked(data: bytes, check: Callable[[bytes], bool] | None) -> bytes:
    if check and not check(data):
        raise SumError("the bytes do not match their checksum")
    return data


@contextmanager
def _as_store_error(action: str, url: str) -> Iterator[None]:
    """Every storage error as one line that says what was tried and where."""
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise MissingError(f"cannot {action} {url}: it is not there") from error
    except GaveUpError as error:
        kind = DamagedError if isinstance(error.error, SumError) else StoreError
        raise kind(f"cannot {action} {url}: {error}") from error.error
    except (SumError, LongError) as error:
        raise DamagedError(f"cannot {action} {url}: {error}") from error
    except Exception as error:
        if not is_storage_error(error):
            raise
        raise StoreError(f"cannot {action} {url}: {one_line(error)}") from error
