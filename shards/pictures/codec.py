"""Picture bytes to square uint8 RGB and back: sniff, decode, shrink, crop, encode.

The size that a picture declares is checked before a pixel is decoded. Kept out: files and tars.
"""

import io
from contextlib import nullcontext

import numpy as np
import simplejpeg
from PIL import Image

from shards.errors import ImageError
from shards.pictures.color_profiles import SPACES, is_srgb
from shards.pictures.formats import (
    JPEG_START,
    PNG_START,
    PNG_TEXTS,
    check_png,
    format_of,
    png_chunks,
    without_chunks,
)
from shards.pictures.jpeg import check_scans, decode_jpeg
from shards.pictures.pillow import decoding, open_picture, refused
from shards.pictures.quiet import no_stderr, no_warnings
from shards.pictures.to_rgb import Pixels as Pixels
from shards.pictures.to_rgb import orientation_of, to_rgb, upright
from shards.tars.records import NPY_HEADER_BYTES, Buffer, npy_header

MAX_PIXELS = 2**26
"""Pictures that declare more are refused; 67 million pixels are 200 MB."""

NPY_START = b"\x93NUMPY"
TELLING = (b"Exif\0", b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/")
"""What a JPEG has in it that says more of its pixels."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Any picture as uint8 (h, w, 3): first frame, upright, sRGB on white. Raises ImageError.

    What decoders write on stderr is kept away; they would not say of which picture they speak.
    """
    silent = no_stderr() if format_of(data) == "TIFF" else nullcontext()
    with no_warnings(), silent:
        if data[:8] != PNG_START:
            return _decode(data, max_pixels)
        check_png(data)
        for dropped in ((), PNG_TEXTS, (*PNG_TEXTS, b"iCCP")):
            try:
                return _decode(without_chunks(data, dropped) if dropped else data, max_pixels)
            except ImageError as error:
                if "MAX_TEXT" not in str(error) or b"iCCP" in dropped:
                    raise
        raise AssertionError


def decode_member(data: bytes) -> Pixels:
    """A picture as `decode` reads it, or an `.npy` of pixels of ours: uint8 (h, w, 3). Raises ImageError."""
    if data[:6] != NPY_START:
        return decode(data)
    size, _ = _npy_size(data)
    return np.frombuffer(data, np.uint8, offset=NPY_HEADER_BYTES).reshape(size, size, 3)


def declared_size(data: Buffer) -> tuple[int, int]:
    """The height and width a picture declares; its pixels are not decoded."""
    if bytes(data[:3]) == JPEG_START:
        return _jpeg_size(data)
    if bytes(data[:6]) == NPY_START:
        return _npy_size(data)
    with no_warnings(), open_picture(data) as picture:
        return picture.height, picture.width


def check_stored(data: bytes, *, sums: bool) -> None:
    """Raise ImageError where `decode_into` would give other pixels than `decode`.

    With `sums` also where the checksums of a PNG tell that it is damaged.
    """
    if not _tells_more(data, sums):
        return
    with no_warnings(), open_picture(data) as picture:
        if picture.format == "PNG":
            with decoding(picture):
                picture.load()  # what tells may lie behind the pixels
        if orientation_of(picture) != 1:
            raise ImageError("its EXIF turns it, and stored pictures are served as they lie", "turned")
        mode = picture.mode if picture.mode in SPACES else "RGB"
        if not is_srgb(picture.info.get("icc_profile"), mode):
            raise ImageError("its colour profile is not sRGB's", "colour profile")


def _tells_more(data: bytes, sums: bool) -> bool:
    """Whether a picture may have more to it than its pixels."""
    if data[:3] == JPEG_START:
        check_scans(data)
        return any(mark in data for mark in TELLING)
    if data[:8] == PNG_START:
        try:
            kinds = {kind for kind, _, _ in png_chunks(data)}
        except ImageError:
            if sums:
                raise
            return False
        return bool(kinds & {b"eXIf", b"iCCP", *PNG_TEXTS})
    return data[:6] != NPY_START


def decode_into(data: Buffer, out: Pixels) -> None:
    """Decode a member of a shard into `out`, (S, S, 3) uint8; any number of threads may.

    Raises ImageError where the picture is damaged or declares another size, before it is decoded.
    """
    start = bytes(data[:6])
    if start[:3] == JPEG_START:
        _decode_jpeg_into(data, out)
        return
    height, width = out.shape[:2]
    if start == NPY_START:
        if bytes(data[:NPY_HEADER_BYTES]) != npy_header(height) or len(data) != NPY_HEADER_BYTES + out.size:
            raise ImageError(f"the .npy is no uint8 array of shape {out.shape}", "wrong size")
        out[...] = np.frombuffer(data, np.uint8, offset=NPY_HEADER_BYTES).reshape(out.shape)
    else:
        with no_warnings(), open_picture(data) as picture:
            _check_size((picture.height, picture.width), (height, width))
            with decoding(picture):
                out[...] = to_rgb(picture)


def to_square(image: Pixels, size: int) -> Pixels:
    """The central square of `image` at `size` by `size`: averaged down, or bilinear up."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    # Cutting first is the paper's shrink-then-crop, without holding a long picture at full length.
    filters = Image.Resampling.BOX if side > size else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(square).resize((size, size), filters))


def encode(image: Pixels, encoding: str, *, quality: int = 90) -> bytes:
    """`image` as npy, png, jpg or webp bytes; `quality` is for the last two."""
    if encoding == "npy":
        return npy_header(image.shape[0]) + image.tobytes()
    if encoding == "jpg":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, colorsubsampling="444"))
    stream = io.BytesIO()
    if encoding == "png":
        Image.fromarray(image).save(stream, "PNG", compress_level=6)
    else:
        assert encoding == "webp", encoding
        Image.fromarray(image).save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


def _decode(data: bytes, max_pixels: int) -> Pixels:
    with open_picture(data) as picture:
        _check_pixels(picture, max_pixels)
        with decoding(picture):
            pixels = decode_jpeg(data, picture) if data[:3] == JPEG_START else to_rgb(picture)
        return upright(pixels, orientation_of(picture))


def _check_pixels(picture: Image.Image, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        declared = f"{picture.width} x {picture.height}"
        raise ImageError(f"it declares {declared} pixels, more than {max_pixels}", "too large")


def _check_size(found: tuple[int, int], wanted: tuple[int, int]) -> None:
    if found != wanted:
        raise ImageError(
            f"the picture is {found[1]} x {found[0]}, not {wanted[1]} x {wanted[0]} pixels", "wrong size"
        )


def _decode_jpeg_into(data: Buffer, out: Pixels) -> None:
    try:
        # It looks at the declared size first, and refuses what does not fit into `out`.
        found = simplejpeg.decode_jpeg(data, "RGB", buffer=out).shape
    except ValueError as error:
        _check_size(_jpeg_size(data), out.shape[:2])
        raise refused(error) from error
    if found != out.shape:
        _check_size(found[:2], out.shape[:2])


def _jpeg_size(data: Buffer) -> tuple[int, int]:
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
    except ValueError as error:
        raise refused(error) from error
    return int(height), int(width)


def _npy_size(data: Buffer) -> tuple[int, int]:
    size = round((max(0, len(data) - NPY_HEADER_BYTES) / 3) ** 0.5)
    if len(data) != NPY_HEADER_BYTES + size * size * 3 or bytes(data[:NPY_HEADER_BYTES]) != npy_header(size):
        raise ImageError("the .npy is no uint8 array of shape (size, size, 3)", "wrong size")
    return size, size
