"""Files of MATLAB up to version 7.2, read by SciPy, with every failure of its reader as one line.

Kept out: what the variables mean.
"""

import struct
import warnings
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardsError
from shards.extras import install

READER_ERRORS = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    TypeError,
    UnicodeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
"""What SciPy raises on files that are cut, damaged or of MATLAB 7.3."""


def read_matlab(
    path: str, shapes: dict[str, tuple[int | None, ...]], *, file: BinaryIO | None = None
) -> dict[str, NDArray[Any]]:
    """The variables named in `shapes`, each of that shape (None: any length). Raises ShardsError.

    The shapes that the file declares are checked before anything is unpacked. `file` holds the bytes of
    `path` where it lies in an archive.
    """
    try:
        # Here and not at the top, because it is an extra.
        from scipy.io import loadmat, whosmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise ShardsError(f".mat files need SciPy: {install('mat')}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            declared = {name: shape for name, shape, _ in whosmat(file or path)}
            for name, shape in shapes.items():
                _check_shape(path, name, declared.get(name), shape)
            found = loadmat(file or path, variable_names=list(shapes))
    except ShardsError:
        raise
    except (MatReadError, *READER_ERRORS) as error:
        text = " ".join(str(error).split())[:100]
        raise ShardsError(f"{path} is cut short or no .mat file of version 5 ({text})") from error
    return {name: np.asarray(found[name]) for name in shapes}


def _check_shape(path: str, name: str, found: tuple[int, ...] | None, wanted: tuple[int | None, ...]) -> None:
    fits = found is not None and len(found) == len(wanted)
    if not fits or any(want not in (None, have) for have, want in zip(found or (), wanted, strict=True)):
        shown = " x ".join("any" if size is None else str(size) for size in wanted)
        raise ShardsError(f"{path} has no {name} of shape {shown} (found: {found or 'nothing'})")
