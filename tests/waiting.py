"""Wait for what another process does, and never for ever."""

import time
from collections.abc import Callable
from pathlib import Path


def until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Raises AssertionError where it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def lines(path: Path) -> int:
    """How many lines a file has; none where there is no file."""
    return len(path.read_text().splitlines()) if path.exists() else 0
