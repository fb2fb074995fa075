"""Tars as others write them, for tests: any format, any members, any order."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shards.pictures.codec import encode
from shards.sources.drawn.rooms import Rooms


def picture(number: int, *, size: int = 16, encoding: str = "jpg") -> bytes:
    """An encoded drawn room."""
    image = Rooms(number + 1, size).item(number).image
    assert isinstance(image, np.ndarray)
    return encode(image, encoding)


def pack(members: Iterable[tuple[str, bytes]], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files, folders where a name ends in a slash, with a time as webdataset's writer gives it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name.rstrip("/"))
            member.size, member.mtime = len(data), 1.5 if format == tarfile.PAX_FORMAT else 1
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def write(folder: Path, members: Iterable[tuple[str, bytes]], *, name: str = "00000.tar") -> str:
    """A dataset without an index; its URL."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(pack(members))
    return str(folder)
