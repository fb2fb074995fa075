"""Decoders kept from writing on stderr, where nobody could tell which picture they mean.

What they refuse still raises. Kept out: our own messages.
"""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

logging.getLogger("PIL").addHandler(logging.NullHandler())

_STDERR = 2
_LOCK, _STDERR_LOCK = threading.Lock(), threading.Lock()
_INSIDE: list[None] = []
_KEPT: "list[warnings.catch_warnings[None]]" = []


@contextmanager
def no_warnings() -> Iterator[None]:
    """Without Python's warnings: those of the whole process, until the last of several threads has left."""
    with _LOCK:
        if not _INSIDE:
            _KEPT.append(warnings.catch_warnings(action="ignore"))
            _KEPT[0].__enter__()
        _INSIDE.append(None)
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE.pop()
            if not _INSIDE:
                _KEPT.pop().__exit__(None, None, None)


@contextmanager
def no_stderr() -> Iterator[None]:
    """Without what C libraries write; for as short as can be, because our own lines are lost too."""
    with _STDERR_LOCK:
        try:
            kept = os.dup(_STDERR)
        except OSError:  # there is no stderr
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STDERR)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
