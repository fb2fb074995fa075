"""Colour profiles: what a picture's numbers mean, brought to sRGB by LittleCMS through Pillow.

A picture without a profile is sRGB already; so is one whose profile is damaged or of another kind of pixels.
"""

import io
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageCms

SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""Mode of Pillow -> kind of pixels that a profile has to be of."""

NEAR = 2
"""Profiles that move no colour by more levels are sRGB in other words; their pictures stay as they are."""

PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, SyntaxError, TypeError, ValueError)


def to_srgb(picture: Image.Image, profile: object) -> Image.Image:
    """A picture of a mode in SPACES as RGB; `profile` is what it has embedded, if anything."""
    transform = _transform(profile, picture.mode) if isinstance(profile, bytes) and profile else None
    if transform is None:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    return transform.apply(picture)


def is_srgb(profile: object, mode: str) -> bool:
    """Whether the colours of a picture with this profile stay as they are."""
    return not isinstance(profile, bytes) or not profile or _transform(profile, mode) is None


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where colours stay as they are."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != SPACES[mode]:
            return None
        made = ImageCms.buildTransform(opened, _srgb(), mode, "RGB")
        if mode == "CMYK":
            return made
        plain = _colours(mode)
        moved = np.asarray(made.apply(plain)).astype(int) - np.asarray(plain.convert("RGB"))
        return made if np.abs(moved).max() > NEAR else None
    except PROFILE_ERRORS:
        return None


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _colours(mode: str) -> Image.Image:
    """All greys, or 17 levels of each of red, green and blue."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.round(np.linspace(0, 255, 17)).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(17, -1, 3))
