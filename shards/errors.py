"""What can go wrong for a user of shards: each is one line that names what, where, and the way out.

Kept out: errors of our own making, which are assertions.
"""

import tokenize

from shards.printable import printable
from shards.redact import redact


class ToldError(ValueError):
    """What a command tells its user: one line that holds no secret and nothing that a terminal obeys."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(redact(message)))


class ShardsError(ToldError):
    """A wrong setting, a damaged dataset, or a picture that cannot be used."""


class StoreError(ShardsError):
    """Storage did not do what was asked: unreachable, refused, or fewer bytes than promised."""


class MissingError(StoreError):
    """The file or folder is not there; retrying will not help."""


class DamagedError(StoreError):
    """The bytes are there, but they are not those that were written, however often they are asked for."""


class ImageError(ShardsError):
    """One picture cannot be used; `reason` is a few words, so that failures can be counted by it."""

    def __init__(self, message: str, reason: str = "not a picture") -> None:
        super().__init__(message)
        self.reason = reason


NPY_ERRORS = (
    *(ValueError, TypeError, EOFError, OverflowError, MemoryError, RecursionError, SyntaxError),
    tokenize.TokenError,
)
"""What numpy raises on a `.npy` header that is none."""
