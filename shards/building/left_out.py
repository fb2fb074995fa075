"""What a command has left out or passed over, on stderr, by number and name.

Kept out: writing it down, which is `failures`' and `sheet`'s.
"""

import sys
from collections.abc import Sequence

from shards.building.cut import Failure
from shards.building.failures import reasons
from shards.dataset.passed_over import Passed
from shards.printable import printable

SHOWN_FAILURES = 20


def print_passed(passed: Passed) -> None:
    """What was passed over, in one line; none where nothing was."""
    if passed.counts:
        print(f"passed over: {printable(passed.told(examples=True))}", file=sys.stderr)


def print_failures(failures: Sequence[Failure]) -> None:
    """What failed, by reason, and the first failures by name."""
    print(f"left out {len(failures)} pictures ({reasons(failures)})", file=sys.stderr)
    for failure in failures[:SHOWN_FAILURES]:
        print(f"  {printable(failure.name)}: {printable(failure.error)}", file=sys.stderr)
    if len(failures) > SHOWN_FAILURES:
        print(f"  and {len(failures) - SHOWN_FAILURES} more, all in failures.json", file=sys.stderr)
