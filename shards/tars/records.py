"""The bytes of a shard: USTAR records that are the same on every machine, and their parsing in memory.

A record is one sample: its image member, then its `.json` member. `.npy` images of one size make every
record equally long, so that a block of samples is one strided array. Kept out: files, URLs, pixels.
"""

import json
import re
import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from shards.errors import ShardsError
from shards.tars.annotations import label_of, parse_meta
from shards.tars.headers import TAR_BLOCK as TAR_BLOCK
from shards.tars.headers import Buffer as Buffer
from shards.tars.headers import in_samples, samples_of, walk
from shards.tars.headers import padding as padding

TAR_END_MULTIPLE = 10240  # what `tar` itself pads to, so that it reads ours without a word
NPY_HEADER_BYTES = 128
PIXELS_OFFSET = TAR_BLOCK + NPY_HEADER_BYTES
"""Where the pixels of an `.npy` record begin."""

ENCODINGS = ("npy", "png", "jpg", "webp")
IMAGE_EXTENSIONS = {"npy": "npy", "png": "png", "jpg": "jpg", "jpeg": "jpg", "webp": "webp"}
"""Member extension -> encoding."""


@dataclass(frozen=True, slots=True)
class Record:
    """One sample: `members` by extension, and the bytes `[start, stop)` of the data it was parsed from."""

    key: str
    members: dict[str, Buffer]
    start: int = 0
    stop: int = 0

    def image(self) -> tuple[str, Buffer] | None:
        """The encoding and bytes of the picture: the first image member.

        One whose extension is only an image's (`jpg`) goes before one that ends so (`seg.png`).
        """
        extension = picture_extension(self.members)
        return (_encoding(extension), self.members[extension]) if extension else None

    def meta(self) -> dict[str, Any]:
        """The `.json` member ("name", "label" and the source's own), empty without one.

        Its "label" is the whole number in the `.cls` member where the json has none.
        """
        found = parse_meta(bytes(self.members.get("json", b"")), self.key)
        label = label_of(found, bytes(self.members.get("cls", b"")))
        return found if label is None else found | {"label": label}


def picture_extensions(
    extensions: Iterable[str], known: Container[str] = IMAGE_EXTENSIONS
) -> tuple[str, ...]:
    """Which of a sample's members are pictures, the one that counts first.

    That is the first whose extension is `known`, or else the first that only ends so (`seg.png`).
    """
    found = [extension for extension in extensions if extension.rpartition(".")[2] in known]
    return tuple(sorted(found, key=lambda extension: extension not in known))


def picture_extension(extensions: Iterable[str]) -> str | None:
    """Which of a sample's members is its picture; None where none is."""
    return next(iter(picture_extensions(extensions)), None)


def _encoding(extension: str) -> str:
    """The encoding of members with this extension, empty where it is not an image's."""
    return IMAGE_EXTENSIONS.get(extension.rpartition(".")[2], "")


def tar_header(name: str, length: int) -> bytes:
    """A USTAR header for a plain file of `length` bytes: mode 0644, no owner, no time."""
    encoded = name.encode()
    if len(encoded) > 100 or length >= 8**11:
        raise ShardsError(
            f"{name!r} of {length} bytes does not fit a USTAR header (100 bytes of name, 8 GiB)"
        )
    before = b"%s0000644\0%s%011o\0%s" % (
        encoded.ljust(100, b"\0"),
        b"0000000\0" * 2,
        length,
        b"0" * 11 + b"\0",
    )
    after = b"0%s%s%s" % (bytes(100), b"ustar\00000", bytes(64 + 2 * 8 + 155 + 12))
    total = sum(before) + 8 * 0x20 + sum(after)
    return before + b"%06o\0 " % total + after


@lru_cache(maxsize=8)
def npy_header(size: int) -> bytes:
    """The 128 bytes before the pixels of a uint8 (size, size, 3) array in NumPy format 1.0."""
    return array_header("'|u1'", f"({size}, {size}, 3)", NPY_HEADER_BYTES)


def array_header(descr: str, shape: str, length: int) -> bytes:
    """The `length` bytes that open an array in NumPy format 1.0, C order."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    assert len(text) < length - 10
    return b"\x93NUMPY\x01\x00" + (length - 10).to_bytes(2, "little") + text.ljust(length - 11) + b"\n"


def compact_json(value: object) -> bytes:
    """JSON in UTF-8 with sorted keys and no blanks: equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def meta_json(meta: Mapping[str, Any], *, pad_bytes: int = 0) -> bytes:
    """The `.json` member, filled up with blanks to `pad_bytes`."""
    try:
        text = compact_json(meta)
    except UnicodeEncodeError:  # half a character, which JSON can only say by its number
        text = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return text.ljust(pad_bytes)


def pack_record(key: str, members: Iterable[tuple[str, bytes]]) -> bytes:
    """The members `(extension, data)` of one sample, in order, as tar bytes."""
    if not key or set(key) & set("./\\\0"):
        raise ShardsError(f"key {key!r} is empty or has one of . / \\ in it; number the samples instead")
    parts = []
    for extension, data in members:
        parts += [tar_header(f"{key}.{extension}", len(data)), data, bytes(padding(len(data)))]
    return b"".join(parts)


def tar_end(length: int) -> bytes:
    """The zero bytes that close a tar whose records take `length` bytes."""
    return bytes(2 * TAR_BLOCK + -(length + 2 * TAR_BLOCK) % TAR_END_MULTIPLE)


def parse_records(data: Buffer, *, where: str = "tar") -> list[Record]:
    """The samples of a whole tar or of any run of whole records; members are views into `data`.

    Raises ShardsError as `shards.tars.headers.walk` and `in_samples` do.
    """
    view = memoryview(data)
    records: list[Record] = []
    members = walk(lambda first, last: view[first:last], len(view), where=where)
    for number, member in in_samples(members, where=where):
        if number == len(records):
            records.append(Record(member.key, {}, records[-1].stop if records else 0, member.stop))
        if member.key:
            records[-1].members[member.extension] = view[member.body : member.body + member.length]
        if records:  # the bytes of a file of no sample go with the sample before
            records[-1] = replace(records[-1], stop=member.stop)
    return records


class Files:
    """Where the files of each sample lie in the bytes of a tar, in a few long lists.

    An object for each file would be work for the garbage collector, whenever a block is opened.
    """

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self.keys: list[str] = []
        self._firsts: list[int] = []
        self.parts: list[Any] = []
        """Extension, start and stop of one file after another."""

    def __len__(self) -> int:
        return len(self.keys)

    def add_sample(self, key: str) -> None:
        """Begin a sample; what is added then is its."""
        self.keys.append(key)
        self._firsts.append(len(self.parts))

    def of(self, sample: int) -> Iterator[tuple[str, Buffer]]:
        """Extension and bytes of each file of a sample, in their order in the tar."""
        parts = self._parts_of(sample)
        return ((parts[at], self._view[parts[at + 1] : parts[at + 2]]) for at in range(0, len(parts), 3))

    def picture(self, sample: int) -> Buffer:
        """The bytes of its picture, as `picture_extension` chooses it; empty without one."""
        parts, best = self._parts_of(sample), -1
        for at in range(0, len(parts), 3):
            if parts[at] in IMAGE_EXTENSIONS:
                return self._view[parts[at + 1] : parts[at + 2]]
            if best < 0 and parts[at].rpartition(".")[2] in IMAGE_EXTENSIONS:
                best = at
        return self._view[parts[best + 1] : parts[best + 2]] if best >= 0 else b""

    def _parts_of(self, sample: int) -> list[Any]:
        stop = self._firsts[sample + 1] if sample + 1 < len(self._firsts) else len(self.parts)
        return self.parts[self._firsts[sample] : stop]


def files_in(data: Buffer, *, where: str = "tar") -> Files:
    """The files of every sample in bytes that match their checksum: those of `parse_records`, faster.

    Raises ShardsError as it does.
    """
    found = Files(data)
    if _add_plain(found, memoryview(data)):
        return found
    found, view = Files(data), memoryview(data)
    for group in samples_of(walk(lambda first, stop: view[first:stop], len(view), where=where), where=where):
        files = [member for member in group if member.key]
        if files:
            found.add_sample(files[0].key)
        for member in files:
            found.parts += (member.extension, member.body, member.body + member.length)
    return found


_HEADER = struct.Struct("100s24x11s21xc188xc")
"""Of a header the name, the length's digits, the kind, and the first byte of a USTAR prefix."""


def _add_plain(found: Files, view: memoryview) -> bool:
    """Add the samples of tars whose headers were all checked when their checksum was made.

    False where any file has more than a short name of ASCII: that is left to the full parse.
    """
    at, total, sample, parts = 0, len(view), b"", found.parts
    unpack = _HEADER.unpack_from
    while at + TAR_BLOCK <= total:
        name, digits, kind, prefix = unpack(view, at)
        if digits.strip(b"01234567") or prefix != b"\0":
            return False
        body = at + TAR_BLOCK
        stop = body + int(digits, 8)
        at = stop + -stop % TAR_BLOCK
        if kind == b"x":
            if _RENAMED.search(view[body:stop]):
                return False
            continue
        stem, _, extension = name.rstrip(b"\0").partition(b".")
        if kind != b"0" or not (part := _plain_extension(extension)):
            return False
        if stem != sample:
            if not _is_plain_key(stem):
                return False
            sample = stem
            found.add_sample(stem.decode())
        parts += (part, body, stop)
    return at == total


@lru_cache(maxsize=1024)
def _plain_extension(extension: bytes) -> str:
    """In lower case; empty where the first dot of its name does not part a key from an extension."""
    return extension.decode().lower() if extension.isascii() and not set(extension) & set(b"/\0") else ""


def _is_plain_key(stem: bytes) -> bool:
    # Perhaps a note, see `shards.tars.headers.META`.
    named = stem.rpartition(b"/")[2] != b"" and not stem.startswith((b"__", b"./__"))
    return named and stem.isascii() and b"\0" not in stem


_RENAMED = re.compile(rb"path=|size=|GNU\.")
"""In a PAX header: what says more of its file than a time."""
