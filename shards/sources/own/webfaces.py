"""Faces in any folder of pictures, found by OpenCV's detector, as the paper found its 350,000.

The paper kept detections of sufficient resolution; its authors trained on 128-pixel crops, of which the
central 64 pixels are used unscaled. A picture gives as many samples as it has faces. Kept out: whose faces
they are.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from shards.errors import ImageError, ShardsError
from shards.pictures.codec import Pixels, decode, to_square
from shards.pictures.cv2_resize import load_cv2
from shards.sources.base import Item
from shards.sources.own.folder import Folder
from shards.tars.records import meta_json

CASCADE = "haarcascade_frontalface_default.xml"
CROP_PIXELS = 128
SCALE_STEP = 1.1
NEIGHBOURS = 5
MAX_FACES = 100


class Webfaces:
    """The faces below the folder `path` whose boxes have at least `min_pixels` a side.

    With `size` below 128 the centre of the 128-pixel crop is kept, as the authors do.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, path: str, size: int, *, min_pixels: int = CROP_PIXELS) -> None:
        if not 20 <= min_pixels <= 4096:
            raise ShardsError(f"min_face={min_pixels} is outside [20, 4096]; give one inside")
        _detector()
        self._folder, self._keep, self._min = Folder(path), min(size, CROP_PIXELS), min_pixels
        self.passed_over = self._folder.passed_over
        box = {"box": [10**5] * 4, "faces": MAX_FACES, "name": ""}
        self.meta_bytes = self._folder.meta_bytes + len(meta_json(box))

    @property
    def samples(self) -> int:
        """The number of pictures, with faces or without."""
        return self._folder.samples

    def settings(self) -> dict[str, Any]:
        """The files, and the detector's settings."""
        found = self._folder.settings() | {"source": "webfaces", "min_face": self._min}
        return found | {"cv2": load_cv2("webfaces").__version__, "keep": self._keep}

    def item(self, position: int) -> tuple[Item, ...]:
        """The faces of the picture at `position`, left to right; its JSON has the box in pixels.

        Raises ImageError where there is none that is large enough.
        """
        found = self._folder.item(position)
        assert isinstance(found.image, bytes)
        pixels = decode(found.image)
        boxes = self._find(pixels)
        if not boxes:
            raise ImageError(f"{found.name} has no face of {self._min} pixels", "no face")
        return tuple(
            Item(found.name, self._cut(pixels, box), None, {"box": list(box), "faces": len(boxes)})
            for box in boxes
        )

    def _find(self, pixels: Pixels) -> list[tuple[int, int, int, int]]:
        """Left, top, width, height of each face."""
        cv2 = load_cv2("webfaces")
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        found = _detector().detectMultiScale(
            grey, scaleFactor=SCALE_STEP, minNeighbors=NEIGHBOURS, minSize=(self._min, self._min)
        )
        boxes = sorted(tuple(int(edge) for edge in box) for box in found)
        return [(left, top, width, height) for left, top, width, height in boxes[:MAX_FACES]]

    def _cut(self, pixels: Pixels, box: tuple[int, int, int, int]) -> Pixels:
        left, top, width, height = box
        crop = to_square(pixels[top : top + height, left : left + width], CROP_PIXELS)
        margin = (CROP_PIXELS - self._keep) // 2
        return np.ascontiguousarray(crop[margin : margin + self._keep, margin : margin + self._keep])


@lru_cache(maxsize=1)
def _detector() -> Any:
    cv2 = load_cv2("webfaces")
    detector = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
    assert not detector.empty()
    return detector
