"""Pictures opened by Pillow, and every way in which it fails as one ImageError with its reason.

Kept out: pixels.
"""

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from shards.errors import ImageError
from shards.pictures.formats import check_png, format_of
from shards.tars.headers import Buffer

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
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

NOT_READ = ("unsupported", "not supported", "not yet supported", "cannot handle", "unknown pixel mode")
"""What Pillow says of sound pictures of a kind that it does not read."""

CUT = ("truncated", "premature", "eof", "not enough")
TIFF_PLANES, TIFF_COMPRESSION = 284, 259
_LOCK = threading.Lock()


def open_picture(data: Buffer) -> ImageFile.ImageFile:
    """What `data` holds, up to its pixels. Raises ImageError."""
    try:
        picture = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
        return _open_planes(data) if _has_raw_planes(picture) else picture
    except UnidentifiedImageError as error:
        raise _unread(data) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"refused: {_one_line(error)}", "too large") from error
    except DECODER_ERRORS as error:
        raise refused(error) from error


@contextmanager
def decoding(picture: ImageFile.ImageFile) -> Iterator[None]:
    """Whatever a decoder raises on `picture`, as ImageError."""
    try:
        yield
    except ImageError:
        raise
    except DECODER_ERRORS as error:
        raise refused(error, picture) from error


def _has_raw_planes(picture: ImageFile.ImageFile) -> bool:
    """Whether colours lie apart in a TIFF that is not compressed; of those Pillow reads 8 bits only."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return False
    return picture.tag_v2.get(TIFF_PLANES) == 2 and picture.tag_v2.get(TIFF_COMPRESSION, 1) == 1


def _open_planes(data: Buffer) -> ImageFile.ImageFile:
    with _LOCK:
        before, TiffImagePlugin.READ_LIBTIFF = TiffImagePlugin.READ_LIBTIFF, True
        try:
            return Image.open(io.BytesIO(data), formats=("TIFF",))
        finally:
            TiffImagePlugin.READ_LIBTIFF = before


def _unread(data: Buffer) -> ImageError:
    """Why Pillow does not take `data` for a picture."""
    name = format_of(data)
    if name is None:
        return ImageError(f"not a picture we read (it begins {bytes(data[:8])!r})")
    try:
        if name == "PNG":
            check_png(data)
        else:
            Image.OPEN[name][0](io.BytesIO(data), "")  # which says why
    except ImageError as error:
        return error
    except DECODER_ERRORS as error:
        return refused(error)
    return ImageError(f"a {name} of a kind that is not read", "unsupported")


def refused(error: Exception, picture: ImageFile.ImageFile | None = None) -> ImageError:
    """What is told of a picture that a decoder failed at."""
    text = _one_line(error)
    packed = picture is not None and picture.info.get("compression") == "webp"
    if packed or isinstance(error, NotImplementedError) or any(words in text.lower() for words in NOT_READ):
        return ImageError(f"of a kind that is not read: {text}", "unsupported")
    cut = any(word in text.lower() for word in CUT)
    return ImageError(f"it does not decode: {text}", "truncated" if cut else "damaged")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
