"""The authors' way of making a picture square: shrink the shorter side with cv2's bilinear filter, then crop.

It does not average, so that fine patterns alias; for comparisons with their results alone. Kept out: the
antialiased way, which is `images.to_square` and the default.
"""

from typing import Any

from shards.errors import ShardsError
from shards.extras import install
from shards.pictures.codec import Pixels

WAYS = ("area", "cv2_linear")


def to_square_cv2(image: Pixels, size: int) -> Pixels:
    """The central square at `size` by `size`, of a picture whose shorter side is brought to `size`."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    if min(height, width) != size:
        image = load_cv2("--resize cv2_linear").resize(image, (wide, high))
    top, left = round((image.shape[0] - size) / 2), round((image.shape[1] - size) / 2)
    return image[top : top + size, left : left + size].copy()


def load_cv2(what: str) -> Any:
    """OpenCV on one thread, for `what`. Raises ShardsError where it is not installed."""
    try:
        import cv2  # here and not at the top, because it is an extra
    except ImportError as error:
        raise ShardsError(f"{what} needs OpenCV: {install('webfaces')}") from error
    cv2.setNumThreads(1)
    return cv2
