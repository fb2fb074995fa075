"""Promise: whatever is done to a picture, it is read, or refused as documented, in little memory.

Of PNG, whose chunks have checksums, turned bits never give other pixels.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
REASONS = {"read", "damaged", "truncated", "too large", "not a picture", "unsupported", "unsupported pixels"}


def fuzz(count, seed):
    """Counts by format and outcome."""
    words = [sys.executable, "-m", "tests.shards.pictures.fuzz_pictures", str(count), str(seed)]
    found = subprocess.run(
        words, capture_output=True, text=True, timeout=3600, cwd=Path(__file__).parent.parents[2], check=False
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout)


def check(counts, count):
    assert sum(counts.values()) == count
    assert {name.split(": ")[1] for name in counts} <= REASONS
    for form in FORMATS:
        outcomes = {name.split(": ")[1] for name in counts if name.startswith(form)}
        assert "read" in outcomes
        assert len(outcomes) > 1


def test_damaged_pictures_are_read_or_refused():
    check(fuzz(1200, 1), 1200)


@pytest.mark.long
def test_thousands_of_damaged_pictures_are_read_or_refused():
    check(fuzz(20_000, 2), 20_000)
