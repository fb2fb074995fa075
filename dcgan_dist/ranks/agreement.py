"""What a rank was given to train on, in words that ranks compare before they train together.

Kept out: comparing, which is `meeting`'s.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dcgan_dist.config.settings import Config
from shards import Index
from shards.redact import redact

OWN = {
    *("data.url", "data.threads", "data.requests", "data.prefetch_bytes"),
    *("data.cache_dir", "data.cache_bytes", "data.warn_after_seconds"),
}
"""Settings that may be each rank's own: where it reads the same pictures, and how."""
DECIDING = ("numpy", "pillow", "simplejpeg")
"""What else decides the pixels; torch is compared whatever the ranks do."""
LETTERS = 12
PACKAGES = ("dcgan_dist", "shards")


def facts(config: Config, index: Index) -> Mapping[str, str]:
    """By name: every setting that matters, the pictures and what is removed of them, and the code."""
    settings = {
        f"{group}.{name}": redact(str(value))
        for group, part in asdict(config).items()
        for name, value in part.items()
        if f"{group}.{name}" not in OWN
    }
    return settings | {
        "dataset or removal marks": index.identity[:LETTERS],
        "code of dcgan_dist": _code()[:LETTERS],
        **{f"version of {name}": _version(name) for name in DECIDING},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@cache
def _code() -> str:
    """A sum of the code of both packages, wherever it is installed."""
    found = hashlib.sha256()
    root = Path(__file__).parent.parent
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            found.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()
