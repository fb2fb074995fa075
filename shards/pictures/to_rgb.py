"""A picture that Pillow has opened as sRGB on white: depth, palette, transparency, profile, orientation.

Where Pillow reads a kind of picture wrongly, that is put right here or refused. Kept out: opening.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from shards.errors import ImageError
from shards.pictures.color_profiles import SPACES, to_srgb

Pixels = NDArray[np.uint8]

ORIENTATION, PHOTOMETRIC, BITS, COLOUR_MAP, SAMPLE_FORMAT = 0x0112, 262, 258, 320, 339
UNSIGNED, UNDEFINED = 1, 4
WHITE_IS_ZERO = 0
LOW_BITS = {"L;2": 85, "L;4": 17}
"""How PNG's greys of few bits are spread over 0 to 255."""


def to_rgb(picture: ImageFile.ImageFile) -> Pixels:
    """The first frame as RGB, as it is stored: not turned. Raises ImageError, and what decoders raise."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        _check_samples(picture)
    frame = picture.tile[0].extents if picture.format == "GIF" and picture.tile else None
    if picture.format == "PNG" and picture.tile:
        _mend_transparency(picture)
    picture.load()
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.mode in ("P", "PA"):
        _mend_palette(picture)
    colour, alpha = _parts(picture)
    rgb = to_srgb(colour, picture.info.get("icc_profile"))
    if alpha is not None:
        rgb.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
    pixels = np.asarray(rgb)
    return _on_canvas(pixels, frame) if frame and frame != (0, 0, *picture.size) else pixels


def orientation_of(picture: ImageFile.ImageFile) -> int:
    """Which of 1 to 8 EXIF, or else XMP, says; 1 where neither does or they are damaged. Of a loaded picture.

    Pillow turns TIFF by itself.
    """
    places = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
    if picture.format in ("TIFF", "GIF", "BMP") or not any(place in picture.info for place in places):
        return 1
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever a damaged block makes Pillow raise
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: flips first, then a quarter turn for 5 to 8."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def _parts(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours in a mode of SPACES, and how opaque each pixel is."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _eight_bits(picture)
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode == "LA":
        return picture.getchannel("L"), picture.getchannel("A")
    if picture.has_transparency_data:
        above = picture.convert("RGBA")
        return above.convert("RGB"), above.getchannel("A")
    if picture.mode == "1":
        return picture.convert("L"), None
    return picture if picture.mode in SPACES else picture.convert("RGB"), None


def _eight_bits(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Greys of up to 16 bits, the highest as 255."""
    tags: Any = getattr(picture, "tag_v2", {})
    bits = tags.get(BITS, (16,))[0]
    whole = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
    if not whole or not 8 < bits <= 16:
        raise ImageError(
            "pixels of 32 bits, signed or floating-point, have no agreed range", "unsupported pixels"
        )
    top = 2**bits - 1
    deep = np.asarray(picture).astype(np.uint32)
    clear = picture.info.get("transparency")
    alpha = (
        Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)) if isinstance(clear, int) else None
    )
    deep = np.minimum(deep, top)
    if tags and tags.get(PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO:
        deep = top - deep
    return Image.fromarray(((deep * 255 + top // 2) // top).astype(np.uint8)), alpha


def _check_samples(picture: TiffImagePlugin.TiffImageFile) -> None:
    """Raise ImageError for a TIFF whose numbers have no agreed black and white."""
    formats = picture.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))
    if set(formats) - {UNSIGNED, UNDEFINED} or picture.mode in ("I", "F"):
        raise ImageError(
            "pixels of 32 bits, signed or floating-point, have no agreed range", "unsupported pixels"
        )


def _mend_palette(picture: TiffImagePlugin.TiffImageFile) -> None:
    """A colour map of 8-bit numbers where the format asks for 16 bits, as old programs write it."""
    table = picture.tag_v2[COLOUR_MAP]
    if max(table) < 256:
        third = len(table) // 3
        picture.putpalette([table[part * third + at] for at in range(third) for part in range(3)])


def _mend_transparency(picture: ImageFile.ImageFile) -> None:
    """The transparent colour of a PNG in the numbers that Pillow gives its pixels."""
    clear, raw = picture.info.get("transparency"), picture.tile[0].args
    raw = raw[0] if isinstance(raw, tuple) else raw
    if isinstance(clear, int) and raw in LOW_BITS:
        picture.info["transparency"] = clear * LOW_BITS[raw]
    elif isinstance(clear, tuple) and raw == "RGB;16B":
        picture.info["transparency"] = tuple(level >> 8 for level in clear)


def _on_canvas(pixels: Pixels, frame: tuple[int, int, int, int]) -> Pixels:
    """White around a first frame that does not cover its canvas."""
    left, top, right, bottom = frame
    page = np.full_like(pixels, 255)
    page[top:bottom, left:right] = pixels[top:bottom, left:right]
    return page
