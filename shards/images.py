"""Picture bytes to square uint8 RGB and back: sniff, decode, shrink, crop, encode.

The size that a picture declares is checked before a pixel is decoded. Kept out: files and tars.
"""

import io
import re
import struct
import zlib

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from shards.errors import ImageError
from shards.format import NPY_HEADER_BYTES, Buffer, npy_header

Pixels = NDArray[np.uint8]

MAX_PIXELS = 2**26
"""Pictures that declare more are refused; 67 million pixels are 200 MB."""

JPEG_START = b"\xff\xd8\xff"
NPY_START = b"\x93NUMPY"
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MARKS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0{4}..\0\0|II[*+]\0|MM\0[*+]", re.DOTALL
)
"""How the formats that we read begin."""

MARK_BYTES = 14
ORIENTATION = 0x0112
DECODER_ERRORS = (
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What simplejpeg and Pillow raise on damaged pictures."""


def decode(data: Buffer, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Any picture as uint8 (h, w, 3): first frame, upright, on white. Raises ImageError."""
    with _open(data) as picture:
        _check_pixels(picture, max_pixels)
        if picture.format == "JPEG" and picture.mode in ("RGB", "L"):
            return _upright(_decode_jpeg(data, picture), _orientation(picture))
        pixels = _to_rgb(picture)
        return _upright(pixels, _orientation(picture)) if picture.format in ("JPEG", "MPO") else pixels


def has_mark(start: bytes) -> bool:
    """Whether a file that begins with these MARK_BYTES says that it is a picture of a format we read."""
    return MARKS.match(start) is not None


def declared_size(data: Buffer) -> tuple[int, int]:
    """The height and width a picture declares; its pixels are not decoded."""
    if bytes(data[:3]) == JPEG_START:
        return _jpeg_size(data)
    if bytes(data[:6]) == NPY_START:
        return _npy_size(data)
    with _open(data) as picture:
        return picture.height, picture.width


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
        with _open(data) as picture:
            _check_size((picture.height, picture.width), (height, width))
            out[...] = _to_rgb(picture)


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


def _open(data: Buffer) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(f"not a picture we read (it begins {bytes(data[:8])!r})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"refused: {_one_line(error)}", "too large") from error
    except DECODER_ERRORS as error:
        raise _damaged(error) from error


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
        raise _damaged(error) from error
    if found != out.shape:
        _check_size(found[:2], out.shape[:2])


def _decode_jpeg(data: Buffer, picture: Image.Image) -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return _to_rgb(picture)  # libjpeg warned; Pillow tells stray bytes from missing ones
    return pixels


def _to_rgb(picture: Image.Image) -> Pixels:
    """The first frame as RGB; transparent parts on white, 16-bit greys scaled to 8."""
    try:
        picture.load()
        if picture.mode == "F":
            raise ImageError("floating-point pixels have no agreed range", "unsupported pixels")
        if picture.mode.startswith("I"):
            deep = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
            grey = ((deep * 255 + 32767) // 65535).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if picture.has_transparency_data:
            above = picture.convert("RGBA")
            page = Image.new("RGBA", above.size, "white")
            return np.asarray(Image.alpha_composite(page, above).convert("RGB"))
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except ImageError:
        raise
    except DECODER_ERRORS as error:
        raise _damaged(error) from error


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is damaged."""
    if "exif" not in picture.info:
        return 1
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: flips first, then a quarter turn for 5 to 8."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def _jpeg_size(data: Buffer) -> tuple[int, int]:
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
    except ValueError as error:
        raise _damaged(error) from error
    return int(height), int(width)


def _npy_size(data: Buffer) -> tuple[int, int]:
    size = round((max(0, len(data) - NPY_HEADER_BYTES) / 3) ** 0.5)
    if len(data) != NPY_HEADER_BYTES + size * size * 3 or bytes(data[:NPY_HEADER_BYTES]) != npy_header(size):
        raise ImageError("the .npy is no uint8 array of shape (size, size, 3)", "wrong size")
    return size, size


def _damaged(error: Exception) -> ImageError:
    text = _one_line(error)
    cut = any(word in text.lower() for word in ("truncated", "premature", "eof", "not enough"))
    return ImageError(f"it does not decode: {text}", "truncated" if cut else "damaged")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
