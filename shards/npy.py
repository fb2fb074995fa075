"""A picture in a `.npy` file of others, whatever its header says.

Kept out: our own `.npy` members, which have one header for each size.
"""

import io
import tokenize

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from shards.errors import ImageError
from shards.images import MAX_PIXELS

HEADER_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What NumPy raises on headers that are damaged or made up."""


def read_picture(data: bytes) -> NDArray[np.uint8]:
    """The picture as uint8 (h, w, 3), from grey (h, w), (h, w, 1) or RGB. Raises ImageError."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(stream)
    except HEADER_ERRORS as error:
        raise ImageError(f"no .npy file: {' '.join(str(error).split())[:80]}") from error
    shown = f"the .npy holds {kind} of shape {str(shape)[:80]}"
    if any(size <= 0 for size in shape) or len(shape) not in (2, 3) or kind != np.uint8 or fortran:
        raise ImageError(f"{shown}, not uint8 (h, w, 3)", "unsupported pixels")
    channels = shape[2] if len(shape) == 3 else 1
    if shape[0] * shape[1] > MAX_PIXELS:
        raise ImageError(shown, "too large")
    if channels not in (1, 3) or len(data) - stream.tell() != shape[0] * shape[1] * channels:
        raise ImageError(f"{shown} in {len(data)} bytes, not uint8 (h, w, 3)", "unsupported pixels")
    pixels = np.frombuffer(data, np.uint8, offset=stream.tell()).reshape(*shape[:2], channels)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*shape[:2], 3)))
