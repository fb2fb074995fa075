"""`python -m dcgan_dist.report RUN...`: one self-contained HTML page, of one run or of several seeds."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from dcgan_dist.report.page import render
from dcgan_dist.report.read_runs import gather
from shards.command import command
from shards.printable import printable, storable
from shards.redact import redact
from shards.storage import store
from shards.storage.paths import argument


@command
def main(argv: Sequence[str]) -> int:
    """The command line. Errors of the user's making are one line."""
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.report",
        description="Every figure and table of the paper beside those of runs, on one page.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", type=argument, help="run folders or URLs; several are one each seed"
    )
    parser.add_argument("--out", type=argument, help="file to write (default: report.html in the first run)")
    args = parser.parse_args(argv)
    out = args.out or store.join(args.runs[0], "report.html")
    runs = [gather(run) for run in dict.fromkeys(args.runs)]
    page = render(runs, command=redact(shlex.join(["python", "-m", "dcgan_dist.report", *argv])))
    store.write_bytes(out, storable(page).encode())
    for problem in (p for each in runs for p in each.problems):
        print(f"left out: {printable(problem)}", file=sys.stderr)
    print(f"report: {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
