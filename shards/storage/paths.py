"""Paths and URLs as somebody gave them, on a command line or in a setting.

`~` and `~user` are home folders, and what names no place is refused: an empty path, as a variable that is not
set leaves behind, would be the current folder to some and `/` to others. Kept out: whether anything is there.
"""

import argparse
from pathlib import Path

from shards.errors import ShardsError
from shards.redact import redact

HOSTED = ("s3", "s3a", "gs", "gcs", "az", "abfs", "adl", "http", "https")
"""Protocols whose URLs name a bucket or a host first."""


def argument(text: str) -> str:
    """A path or URL with home folders filled in, as the type of an option or argument of argparse."""
    protocol, colon, rest = text.rpartition("://")
    if not rest.strip():
        raise _wrong(text, "names no place; give a path or URL (is a variable not set?)")
    if "\0" in rest:
        raise _wrong(text, "holds a NUL, which no path can; give another")
    if protocol in HOSTED and rest.startswith("/"):
        raise _wrong(text, "names no bucket or host; give one (is a variable not set?)")
    if protocol in ("", "file") and rest.startswith("~"):
        try:
            rest = str(Path(rest).expanduser())
        except RuntimeError as error:
            raise _wrong(text, f"names no home folder; a file that begins with ~ is ./{rest}") from error
    return f"{protocol}{colon}{rest}"


def given(text: str, name: str) -> str:
    """As `argument`, for what was given as `name`. Raises ShardsError."""
    try:
        return argument(text)
    except argparse.ArgumentTypeError as error:
        raise ShardsError(f"{name}: {error}") from error


def add_place(parser: argparse.ArgumentParser, name: str, metavar: str, what: str = "the dataset") -> None:
    """An argument that is a folder or URL."""
    parser.add_argument(name, metavar=metavar, type=argument, help=f"{what}: a folder or any fsspec URL")


def _wrong(text: str, why: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(redact(f"{text!r} {why}"))
