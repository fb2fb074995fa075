"""JPEGs by libjpeg-turbo: which of its warnings mean that pixels are missing, and which do not.

Kept out: orientation.
"""

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from shards.errors import ImageError
from shards.pictures.color_profiles import is_srgb, to_srgb
from shards.pictures.pillow import open_picture, refused
from shards.pictures.to_rgb import Pixels, to_rgb
from shards.tars.headers import Buffer

END_OF_IMAGE = b"\xff\xd9"
MAX_SCANS = 100
"""A progressive JPEG has about ten; each scan costs time for every pixel, however few bytes it has."""

_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def decode_jpeg(data: bytes, picture: ImageFile.ImageFile, *, ended: bool = False) -> Pixels:
    """As RGB, not turned; `ended` where the mark of the end was added to a file that lacked it."""
    if picture.info.get("progressive") or not _begins_with_all(data, picture):
        check_scans(data)
    space = "CMYK" if picture.mode == "CMYK" else "RGB"
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, space)
    except ValueError as error:
        text = str(error).lower()
        if "premature end of jpeg" in text and not ended:
            return _decode_endless(data, picture, error)
        if "premature" in text or ("corrupt jpeg" in text and "extraneous" not in text):
            raise refused(error) from error
        return to_rgb(picture)  # stray bytes, or something else that Pillow knows better
    profile = picture.info.get("icc_profile")
    if space == "CMYK":
        return to_rgb(picture)
    if is_srgb(profile, picture.mode):
        return pixels
    return np.asarray(to_srgb(Image.fromarray(pixels[:, :, 0] if picture.mode == "L" else pixels), profile))


def _decode_endless(data: bytes, picture: ImageFile.ImageFile, error: Exception) -> Pixels:
    """A JPEG without its end mark, if that is all it lacks."""
    if picture.info.get("progressive") and not has_all_scans(data):
        raise refused(error) from error
    whole = data + END_OF_IMAGE
    with open_picture(whole) as again:
        return decode_jpeg(whole, again, ended=True)


def _begins_with_all(data: bytes, picture: ImageFile.ImageFile) -> bool:
    """Whether the first scan of a JPEG that Pillow has read up to its pixels holds all components."""
    header = 6 + 2 * len(picture.getbands())
    place = picture.fp.tell() - header - 2 if picture.fp else 0
    return data[max(0, place) : place + 4] == b"\xff\xda" + header.to_bytes(2, "big")


def check_scans(data: bytes) -> None:
    """Raise ImageError for a JPEG of many scans, which costs minutes to decode."""
    if (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageError(f"the JPEG has {scans} scans, more than {MAX_SCANS}", "too large")


def has_all_scans(data: Buffer) -> bool:
    """Whether the scans of a progressive JPEG bring every coefficient of each component to its last bit."""
    left: dict[int, list[int]] = {}
    for kind, start, stop in _segments(data):
        body = bytes(data[start:stop])
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            left |= {part: [1] * 64 for part in body[6::3]}
        elif kind == 0xDA and len(body) == 4 + 2 * body[0]:
            first, last, bits = body[-3:]
            for part in body[1:-3:2]:
                left.setdefault(part, [1] * 64)[first : last + 1] = [bits & 15] * (last + 1 - first)
    return bool(left) and not any(any(bits) for bits in left.values())


def _segments(data: Buffer) -> Iterator[tuple[int, int, int]]:
    """Marker, start and stop of the body of each segment of a JPEG; what scans encode is passed over."""
    at = 2
    while (found := _AFTER_SCAN.search(data, at)) and found.end() + 2 <= len(data):
        at = found.end()
        kind = data[at - 1]
        if kind in (0xD8, 0x01):
            continue
        if kind == 0xD9:
            return
        stop = at + int.from_bytes(data[at : at + 2], "big")
        yield kind, at + 2, stop
        at = max(stop, at + 2)
