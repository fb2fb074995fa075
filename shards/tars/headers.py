"""The files in a tar, one after another, and which of them are one sample: v7, USTAR, PAX and GNU.

Every header is checked; links, special files and names that leave the folder are refused. Kept out: what the
files say, and where the bytes come from.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from shards.errors import ShardsError
from shards.printable import storable

Buffer: TypeAlias = bytes | memoryview
Read: TypeAlias = Callable[[int, int], Buffer]
"""Gives the bytes `[start, stop)` of a tar; asked from front to back."""

TAR_BLOCK = 512
FILES = (b"0", b"\0", b"7")
FOLDERS = (b"5",)
LINKS = (b"1", b"2", b"3", b"4", b"6")
WRITE_FILES = "write the tar anew: tar --dereference --hard-dereference"
"""Types of headers; devices and pipes are no more than links to what is not there."""

NAMELESS = {
    f".{extension}" for extension in ("npy", "png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff")
}
MAX_HEADERS_BYTES = 2**20
"""Headers of a single file may take so much; more is no name but an attack."""

FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""In names: what would break a line of output, or be a folder elsewhere."""

PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}
"""How packed files begin, and what unpacks them."""

META = re.compile(r"(\./)?__[^/]*__(/|$)")
"""Names that webdataset takes for notes about the tar."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a tar, whose `length` bytes begin at byte `body`.

    `key` names its sample and `extension`, in lower case, its part in it, see `split_name`; both are empty
    for what belongs to no sample. A link has no bytes of its own.
    """

    name: str
    key: str
    extension: str
    body: int
    length: int
    link: bool = False

    @property
    def stop(self) -> int:
        """Where the next header begins."""
        return self.body + self.length + padding(self.length)


def padding(length: int) -> int:
    """The zero bytes after a member of `length` bytes."""
    return -length % TAR_BLOCK


def split_name(name: str) -> tuple[str, str]:
    """The key of the sample that the file `name` belongs to, and its part in it: all after the first dot.

    `a/b.seg.png` has the key `a/b` and the extension `seg.png`. Both are empty for a folder, for a file
    without a dot or with nothing before it, and for what lies in `__meta__/` and the like.
    """
    base = name.rpartition("/")[2]
    stem, _, extension = base.partition(".")
    if not stem or not extension or META.match(name):
        return "", ""
    return name[: len(name) - len(extension) - 1], extension.lower()


def in_samples(members: Iterable[Member], *, where: str) -> Iterator[tuple[int, Member]]:
    """Each file with the number of its sample, from 0: neighbours with one key are one sample.

    Files of no sample go with the one before. Raises ShardsError where a sample has two files of one
    extension, and at a picture without a name, a sample to some readers and none to others.
    """
    number, key, extensions = -1, "", set[str]()
    for member in members:
        if member.key:
            if member.key != key:
                number, key, extensions = number + 1, member.key, set()
            if member.extension in extensions:
                raise ShardsError(
                    f"{where}: {member.name!r} is there twice in one sample; write the tar without one"
                )
            extensions.add(member.extension)
        elif member.name.rpartition("/")[2].lower() in NAMELESS:
            raise ShardsError(
                f"{where}: {member.name!r} is a picture without a name; write the tar without it"
            )
        yield number, member


def samples_of(members: Iterable[Member], *, where: str) -> Iterator[list[Member]]:
    """The files of each sample, those of no sample that lie behind it too; the first may be of none.

    Raises ShardsError as `in_samples` does.
    """
    for _, group in groupby(in_samples(members, where=where), key=itemgetter(0)):
        yield [member for _, member in group]


def walk(read: Read, total: int, *, where: str, whole: bool = False, links: bool = False) -> Iterator[Member]:
    """The files and folders in the `total` bytes of a tar, or of any run of whole members.

    Raises ShardsError where they are damaged or cut short, or where a `whole` tar lacks its end, and at links
    and special files unless they are asked for.
    """
    at = start = 0  # `start` is where the first header of the next file lies
    said: dict[bytes, bytes] = {}  # by the headers before, of the file that follows
    while at < total:
        header = bytes(read(at, min(at + TAR_BLOCK, total)))
        if not any(header):
            if start != at:
                raise ShardsError(
                    f"{where}: byte {start}: a header whose file is missing; the tar is damaged"
                )
            _check_end(read, at, total, where)
            whole = False
            break
        kind, name, length = _parse_header(header, said, f"{where}: byte {at}")
        body = at + TAR_BLOCK
        at = body + length + padding(length)
        if at > total:
            raise ShardsError(
                f"{where}: {name!r} ends at byte {at} but only {total} are there; it is cut short"
            )
        if kind in b"xgLK":
            _check_room(at - start, where)
            said |= _parse_said(kind, bytes(read(body, at)), length, f"{where}: byte {body}")
        else:
            if kind in LINKS and not links:
                raise ShardsError(
                    f"{where}: byte {body - TAR_BLOCK}: {name!r} is a link or a special file "
                    f"(type {kind!r}); only files are read, so {WRITE_FILES}"
                )
            yield _member(kind, name, body, length, f"{where}: byte {body - TAR_BLOCK}")
            said, start = {}, at
    if said or whole:
        raise ShardsError(f"{where}: the end of the tar is missing; it is cut short, so write it again")


def _check_end(read: Read, at: int, total: int, where: str) -> None:
    """Nothing but zeros from `at` on, two tar blocks of them at least."""
    if total - at < 2 * TAR_BLOCK:
        raise ShardsError(f"{where}: half the end of the tar is missing; it is cut short, so write it again")
    for start in range(at, total, MAX_HEADERS_BYTES):
        if bytes(read(start, min(start + MAX_HEADERS_BYTES, total))).strip(b"\0"):
            raise ShardsError(
                f"{where}: there are bytes after the end of the tar; the file is damaged or two were joined"
            )


def _check_room(length: int, where: str) -> None:
    if length > MAX_HEADERS_BYTES:
        raise ShardsError(f"{where}: a file with over {MAX_HEADERS_BYTES} bytes of headers; it is damaged")


def _parse_header(header: bytes, said: dict[bytes, bytes], where: str) -> tuple[bytes, bytes, int]:
    """Kind, name and length of a member; `said` before of name and length wins."""
    if len(header) < TAR_BLOCK:
        raise ShardsError(f"{where}: {len(header)} bytes where a tar header of 512 belongs; it is cut short")
    _check_header(header, where)
    kind, name, length = header[156:157], header[:100].partition(b"\0")[0], _length(header[124:136], where)
    if kind in b"xgLK":
        return kind, name, length
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    name = said.get(b"path", name)
    if kind in FOLDERS + LINKS:
        return kind, name, 0  # what they say of their length is not followed by bytes
    if kind == b"S":
        raise _sparse(where)
    if kind not in FILES:
        raise ShardsError(f"{where}: {name!r} is of the unknown type {kind!r}; only files are read")
    return kind, name, _decimal(said[b"size"], where) if b"size" in said else length


def _check_header(header: bytes, where: str) -> None:
    packed = next((told for mark, told in PACKED.items() if header.startswith(mark)), None)
    if packed and header[257:262] != b"ustar":
        raise ShardsError(
            f"{where}: packed with {packed[0]}; packed tars are not read, so {packed[1]} it first"
        )
    if header[257:262] != b"ustar" and any(header[257:265] + header[345:500]):  # v7, of 1979, has neither
        raise ShardsError(f"{where}: no tar header here (no ustar mark); the file is damaged or no tar")
    if _octal(header[148:156], where) != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise ShardsError(f"{where}: the tar header does not match its checksum; the file is damaged")


def _sparse(where: str) -> ShardsError:
    return ShardsError(f"{where}: a sparse file; only whole files are read, so write the tar without -S")


def _length(field: bytes, where: str) -> int:
    """A length in octal digits or, as GNU tar writes long ones, in base 256."""
    if field[0] != 0x80:
        return _octal(field, where)
    value = int.from_bytes(field[1:], "big")
    if value >= 2**60:
        raise ShardsError(f"{where}: {field!r} in the tar header is no length; the file is damaged")
    return value


def _octal(field: bytes, where: str) -> int:
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits or digits.strip(b"01234567"):
        raise ShardsError(f"{where}: {field!r} in the tar header is no octal number; the file is damaged")
    return int(digits, 8)


def _decimal(field: bytes, where: str) -> int:
    if not field.isdigit() or len(field) > 18:
        raise ShardsError(f"{where}: {field[:40]!r} in a PAX header is no length; the file is damaged")
    return int(field)


def _parse_said(kind: bytes, padded: bytes, length: int, where: str) -> dict[bytes, bytes]:
    """What a PAX header or a GNU long name tells of the next file: `path`, `size`, either or none."""
    if kind in b"LK":
        name, _, rest = padded.partition(b"\0")
        if len(name) > length or rest[: max(0, length - len(name) - 1)].strip(b"\0"):
            raise ShardsError(f"{where}: this long name of a file is damaged")
        return {b"path": name} if kind == b"L" else {}  # K: the target of a link, which is not followed
    fields = _pax_fields(padded[:length], where)
    if any(name.startswith(b"GNU.sparse.") for name in fields):
        raise _sparse(where)
    found = {name: value for name, value in fields.items() if name in (b"path", b"size")}
    if found and kind == b"g":
        raise ShardsError(f"{where}: a PAX header that gives all files one name or length; it is damaged")
    return found


def _pax_fields(body: bytes, where: str) -> dict[bytes, bytes]:
    """The `length name=value` lines of a PAX header; a later one wins."""
    fields, at = {}, 0
    while at < len(body):
        digits, blank, _ = body[at : at + 20].partition(b" ")
        stop = at + _decimal(digits, where)
        name, equals, value = body[at + len(digits) + 1 : stop - 1].partition(b"=")
        if not blank or not equals or stop > len(body) or body[stop - 1 : stop] != b"\n":
            raise ShardsError(f"{where}: this PAX header is damaged at {body[at : at + 20]!r}")
        fields[name] = value
        at = stop
    return fields


def _member(kind: bytes, raw: bytes, body: int, length: int, where: str) -> Member:
    name = raw.decode(errors="surrogateescape")
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or FORBIDDEN.search(name):
        raise ShardsError(
            f"{where}: refusing the member name {name!r}: it is empty, leaves its folder or has control signs"
        )
    if kind in FOLDERS and not name.endswith("/"):
        name += "/"
    name = storable(name)
    return Member(name, *split_name(name), body, length, kind in LINKS)
