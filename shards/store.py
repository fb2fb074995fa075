"""The one place that touches storage: local folders and any fsspec URL, by whole files and byte ranges.

A file is whole or absent; a read returns the bytes asked for or raises. URLs are `str`, because a Path
turns `s3://b` into `s3:/b`. Kept out: what the bytes mean.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from shards import local
from shards.errors import MissingError, StoreError

T = TypeVar("T")

TRIES = 3
BACKOFF_SECONDS = 0.5
CLIENT_MODULES = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3"}
"""Packages whose errors are storage errors although they are no OSError."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "adl": "az"}


def is_local(url: str) -> bool:
    """Whether `url` is a path of this machine, plain or `file://`."""
    return "://" not in url or url.startswith("file://")


def join(url: str, *names: str) -> str:
    """`url/name/...`, with one slash between."""
    return f"{url}{'' if url.endswith('/') else '/'}{'/'.join(names)}"


def exists(url: str) -> bool:
    """Whether a file or folder is at `url`."""
    with _as_store_error("look for", url):
        if is_local(url):
            return _path(url).exists()
        fs, path = _remote(url)
        fs.invalidate_cache()
        return bool(fs.exists(path))


def sizes(url: str) -> dict[str, int]:
    """The bytes of each file that lies directly in the folder `url`, by name, sorted."""
    with _as_store_error("list", url):
        if is_local(url):
            with os.scandir(_path(url)) as entries:
                found = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        else:
            fs, path = _remote(url)
            fs.invalidate_cache()
            rows: list[dict[str, Any]] = _retried(lambda: fs.ls(path, detail=True))
            files = [row for row in rows if row["type"] == "file"]
            found = {row["name"].rpartition("/")[2]: int(row["size"] or 0) for row in files}
    return dict(sorted(found.items()))


def read_bytes(url: str) -> bytes:
    """The whole file."""
    with _as_store_error("read", url):
        if is_local(url):
            return _path(url).read_bytes()
        fs, path = _remote(url)
        return bytes(_retried(lambda: fs.cat_file(path)))


def read_range(url: str, start: int, stop: int) -> bytes:
    """Exactly the bytes `[start, stop)`. Raises StoreError where the file ends before."""
    assert 0 <= start <= stop, (start, stop)
    with _as_store_error(f"read bytes {start} to {stop} of", url):
        if is_local(url):
            return _exact(local.read_range(_path(url), start, stop), start, stop)
        if start == stop:
            return b""  # some servers answer an empty range with the whole file
        fs, path = _remote(url)

        def fetch() -> bytes:
            return _exact(bytes(fs.cat_file(path, start=start, end=stop)), start, stop)

        return _retried(fetch)


def write_bytes(url: str, data: bytes) -> None:
    """Put the file there whole; on any failure the old one, or none, is there as before."""
    with _as_store_error("write", url):
        if is_local(url):
            local.write_bytes(_path(url), data)
        else:
            fs, path = _remote(url)
            fs.pipe_file(path, data)


def remove(url: str) -> None:
    """Remove the file, if it is there."""
    with _as_store_error("remove", url):
        if is_local(url):
            local.remove(_path(url))
            return
        fs, path = _remote(url)
        fs.invalidate_cache()
        if fs.exists(path):
            fs.rm_file(path)


def make_folder(url: str) -> None:
    """Make the folder and those above it, if they are not there."""
    with _as_store_error("make the folder", url):
        if is_local(url):
            _path(url).mkdir(parents=True, exist_ok=True)
        else:
            fs, path = _remote(url)
            fs.makedirs(path, exist_ok=True)


def _path(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def _remote(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        way_out = f"pip install 'dcgan_dist[{extra}]'" if extra else _one_line(error)
        raise StoreError(f"{url}: {protocol}:// needs a package that is not installed: {way_out}") from error
    except ValueError as error:
        raise StoreError(
            f"{url}: {protocol}:// is no kind of storage fsspec knows: {_one_line(error)}"
        ) from error
    return fs, path


@contextmanager
def _as_store_error(action: str, url: str) -> Iterator[None]:
    """Every storage error as one line that says what was tried and where."""
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise MissingError(f"cannot {action} {url}: it is not there") from error
    except Exception as error:
        if not _is_storage_error(error):
            raise
        raise StoreError(f"cannot {action} {url}: {_one_line(error)}") from error


def _is_storage_error(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in CLIENT_MODULES


def _one_line(error: Exception) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())


def _retried(read: Callable[[], T]) -> T:
    """What `read` returns, tried again after storage errors that may pass."""
    for attempt in range(1, TRIES):
        try:
            return read()
        except FileNotFoundError:
            raise
        except Exception as error:
            if not _is_storage_error(error):
                raise
            time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
    return read()


def _exact(data: bytes, start: int, stop: int) -> bytes:
    if len(data) != stop - start:
        raise OSError(f"got {len(data)} bytes, not {stop - start}; the file is shorter than its index says")
    return data
