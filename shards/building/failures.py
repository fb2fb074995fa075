"""The pictures that a build could not use: how many it takes, and where they are written down.

A failure of storage is not among them, because it stops the build. Kept out: what makes a picture unusable.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from shards.building.cut import Failure
from shards.errors import ShardsError
from shards.redact import redacted
from shards.storage import store
from shards.tars.records import compact_json

FAILURES_NAME = "failures.json"
MAX_BAD = 0.01
"""The share of unusable pictures that a build takes when it is not told another."""

FEW = 10
FEW_SHARE = 0.5
"""So many are taken of a small set too, when it is not told another; but no more than this share of them."""

EXPECTED = ("no face", "empty value")
"""Reasons that speak against no picture, because their sources have such items by nature; not limited."""


def bad_allowed(samples: int, max_bad: float | None) -> int:
    """How many of `samples` pictures may be unusable; `max_bad` is a share in [0, 1], None the usual one."""
    if max_bad is None:
        return max(int(MAX_BAD * samples), min(FEW, math.ceil(FEW_SHARE * samples)))
    if not 0 <= max_bad <= 1:
        raise ShardsError(f"max_bad={max_bad} is outside [0, 1]; give a share, such as 0.05")
    return int(max_bad * samples + 1e-9)  # a share of 0.29 of 100 is 29


def check_failures(failures: Sequence[Failure], out_url: str, *, samples: int, max_bad: float | None) -> None:
    """Raises ShardsError, and writes `failures` down, where they are more than a build of `samples` takes."""
    bad = [failure for failure in failures if failure.reason not in EXPECTED]
    allowed = bad_allowed(samples, max_bad)
    if not allowed < len(bad) < samples:  # where all of them failed, the build has its own word
        return
    write_failures(out_url, failures)
    raise ShardsError(
        f"{len(bad)} of {samples} pictures are bad ({reasons(bad)}), and no more than {allowed} may be; "
        f"see {FAILURES_NAME} in {out_url}; mend them, or allow more by --max-bad SHARE, "
        f"and the same command goes on"
    )


def reasons(failures: Sequence[Failure]) -> str:
    """How many failed for which reason, the most frequent first."""
    counts = Counter(failure.reason for failure in failures)
    return ", ".join(f"{reason}: {number}" for reason, number in counts.most_common())


def write_failures(out_url: str, failures: Sequence[Failure]) -> None:
    """Write down what failed; nothing is left of an earlier build where nothing did."""
    where = store.join(out_url, FAILURES_NAME)
    if not failures:
        store.remove(where)
        return
    counts = Counter(failure.reason for failure in failures)
    store.write_bytes(
        where, compact_json(redacted({"counts": counts, "failures": [asdict(each) for each in failures]}))
    )
