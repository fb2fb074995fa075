"""What the bytes of a picture tell before a pixel is decoded: its format, and its checksums.

Kept out: the decoders.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from shards.errors import ImageError
from shards.tars.headers import Buffer

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
MARKS = {
    "JPEG": JPEG_START,
    "PNG": PNG_START,
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBP",
    "BMP": rb"BM....\0{4}..\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0",
}
"""How the formats that we read begin."""

MARK_BYTES = 14
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")

_MARKS = {
    name: re.compile(re.escape(mark) if mark in (JPEG_START, PNG_START) else mark, re.DOTALL)
    for name, mark in MARKS.items()
}


def format_of(start: Buffer) -> str | None:
    """The format that a file which begins with these MARK_BYTES says that it has; None for no picture."""
    return next((name for name, mark in _MARKS.items() if mark.match(start)), None)


def png_chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and stop of each chunk of a PNG, its checksum verified. Raises ImageError.

    An end that is missing is for the decoder to judge, which knows whether there are pixels enough.
    """
    view, at = memoryview(data), len(PNG_START)
    while at + 12 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, at)
        stop = at + 12 + length
        if stop > len(view):
            raise ImageError(f"it does not decode: its chunk at byte {at} is cut short", "truncated")
        if zlib.crc32(view[at + 4 : stop - 4]) != struct.unpack_from(">I", view, stop - 4)[0]:
            raise ImageError(
                f"it does not decode: its chunk at byte {at} does not match its checksum", "damaged"
            )
        yield kind, at, stop
        if kind == b"IEND":
            return
        at = stop


def check_png(data: Buffer) -> None:
    """Raise ImageError where a chunk of a PNG is cut or does not match its checksum."""
    for _ in png_chunks(data):
        pass


def without_chunks(data: Buffer, kinds: tuple[bytes, ...]) -> bytes:
    """A PNG without its chunks of these kinds."""
    view = memoryview(data)
    kept = (view[start:stop] for kind, start, stop in png_chunks(data) if kind not in kinds)
    return b"".join([PNG_START, *kept])
