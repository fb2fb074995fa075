"""The bytes of a shard: USTAR records that are the same on every machine, and their parsing in memory.

A record is one sample: its image member, then its `.json` member. `.npy` images of one size make every
record equally long, so that a block of samples is one strided array. Kept out: files, URLs, pixels.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from shards.errors import ShardsError

Buffer: TypeAlias = bytes | memoryview

TAR_BLOCK = 512
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
    members: dict[str, memoryview]
    start: int = 0
    stop: int = 0

    def image(self) -> tuple[str, memoryview] | None:
        """The encoding and bytes of the first image member, if there is one."""
        for extension, data in self.members.items():
            if encoding := IMAGE_EXTENSIONS.get(extension.lower()):
                return encoding, data
        return None

    def meta(self) -> dict[str, Any]:
        """The `.json` member ("name", "label" and the source's own); empty without one."""
        if "json" not in self.members:
            return {}
        try:
            found = json.loads(bytes(self.members["json"]))
        except (ValueError, RecursionError) as error:
            raise ShardsError(f"sample {self.key}: its .json member is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ShardsError(f"sample {self.key}: its .json member is not a JSON object")
        return found


def padding(length: int) -> int:
    """The zero bytes after a member of `length` bytes."""
    return -length % TAR_BLOCK


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
    return compact_json(meta).ljust(pad_bytes)


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

    Neighbouring members whose names agree up to the first dot are one sample. Raises ShardsError on a
    damaged or short header, a short member, a link, or a name that leaves the folder.
    """
    view = memoryview(data)
    records: list[Record] = []
    at = start = 0
    while at < len(view):
        header = bytes(view[at : at + TAR_BLOCK])
        if not any(header):
            _check_end(view[at:], where)
            break
        kind, name, length = _parse_header(header, f"{where}: byte {at}")
        body = at + TAR_BLOCK
        at = body + length + padding(length)
        if at > len(view):
            raise ShardsError(
                f"{where}: {name!r} ends at byte {at} but only {len(view)} are there; it is cut short"
            )
        if kind in b"xg":
            _check_pax(bytes(view[body : body + length]), where)
        elif kind in b"0\0":
            _add_member(records, name, view[body : body + length], start, at, where)
            start = at
        elif kind != b"5":
            raise ShardsError(
                f"{where}: {name!r} is a link or a special file (type {kind!r}); only files are read"
            )
    return records


def image_members(data: Buffer) -> list[memoryview] | None:
    """The image of each sample in bytes that match their checksum, without looking at each header twice.

    None where the bytes are not plain records as `pack_record` writes them: `parse_records` is for those.
    """
    view = memoryview(data)
    found: list[memoryview] = []
    at, total, sample = 0, len(view), b""
    while at < total:
        body = at + TAR_BLOCK
        name, kind = bytes(view[at : at + 100]), bytes(view[at + 124 : at + 157])
        key, _, rest = name.partition(b".")
        extension, digits = rest.partition(b"\0")[0], kind[:11]
        if kind[32:] != b"0" or not digits.isdigit():
            return None
        stop = body + int(digits, 8)
        if key != sample and extension in _PLAIN_IMAGES:
            found.append(view[body:stop])
            sample = key
        elif key != sample or extension != b"json":
            return None
        at = stop + -stop % TAR_BLOCK
    return found if at == total else None


_PLAIN_IMAGES = {extension.encode() for extension in IMAGE_EXTENSIONS}


def _parse_header(header: bytes, where: str) -> tuple[bytes, str, int]:
    if len(header) < TAR_BLOCK:
        raise ShardsError(f"{where}: {len(header)} bytes where a tar header of 512 belongs; it is cut short")
    if header[257:262] != b"ustar":
        raise ShardsError(f"{where}: no tar header here (no ustar mark); the file is damaged or no tar")
    if _octal(header[148:156], where) != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise ShardsError(f"{where}: the tar header does not match its checksum; the file is damaged")
    name = header[:100].rstrip(b"\0")
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].rstrip(b"\0") + b"/" + name
    return header[156:157], _safe_name(name, where), _octal(header[124:136], where)


def _octal(field: bytes, where: str) -> int:
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise ShardsError(f"{where}: {field!r} in the tar header is no octal number; the file is damaged")
    return int(digits, 8)


def _safe_name(raw: bytes, where: str) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise ShardsError(f"{where}: the member name {raw!r} is not UTF-8") from error
    if not name or name.startswith("/") or ".." in name.split("/") or set(name) & set("\\\0"):
        raise ShardsError(f"{where}: refusing the member name {name!r}: it is empty or leaves its folder")
    return name


def _check_end(rest: memoryview, where: str) -> None:
    if bytes(rest).strip(b"\0"):
        raise ShardsError(
            f"{where}: there are bytes after the end of the tar; the file is damaged or two were joined"
        )


def _check_pax(body: bytes, where: str) -> None:
    if b" path=" in body or b" size=" in body:
        raise ShardsError(
            f"{where}: member names over 100 bytes (PAX) are not read; write the tar with short names"
        )


def _add_member(
    records: list[Record], name: str, data: memoryview, start: int, stop: int, where: str
) -> None:
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    key = f"{folder}/{stem}" if folder else stem
    members: dict[str, memoryview] = {}
    if records and records[-1].key == key:
        previous = records.pop()
        start, members = previous.start, previous.members
        if extension in members:
            raise ShardsError(f"{where}: {name!r} is there twice in one sample")
    records.append(Record(key, members | {extension: data}, start, stop))
