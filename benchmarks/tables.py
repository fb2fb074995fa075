"""docs/performance.md from benchmarks/*.jsonl: the newest line of every measurement.

python -m benchmarks.tables            # write it
python -m benchmarks.tables --check    # exit status 1 where it is not what the lines say
"""

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"

ABOUT = {
    "step": "One training step, data already on the device; `plain` is the loop of the well-known tutorial.",
    "gpu": "What a card showed: every test that needs one, and an epoch of drawn rooms.",
    "feed": "From storage to decoded batches, warm page cache, batches of 128, beside readers used instead.\n"
    "No reader with our JPEG decoder can be faster than `decoder_alone`.",
    "reads": "Requests and bytes of an epoch of 3,033,042 pictures over the least possible: counted.",
    "end_to_end": "Training on two ranks fed from an object store, against the step on a batch at hand.",
    "scaling": "Two ranks on two cores against one on one core; collectives of one step.",
    "faults": "Faults between the feed and a real object store, and what was served wrong.",
    "convolution": "Single layers with the weight gradient as one matrix product, over torch's own.",
    "chaos": "Runs killed by SIGKILL at random moments, and whether they ended where an unbroken one ends.",
    "checkpoint": "What saving costs the loop.",
    "memory": "Memory of one rank without the feed, by network and images of that rank.",
    "start": "From the command to the first step.",
    "slurm": "Interruptions of training on a real Slurm of four nodes, and how many ended as unbroken.",
    "ingest": "Making shards from large sources.",
    "dedup": "Finding duplicates.",
}


BEFORE = "AVX512 bf16"
"""What the machines could do of which lines do not say it: those until the 23rd of November 2026."""
Lines = dict[str, dict[str, Any]]


def newest(path: Path) -> dict[str, Lines]:
    """The last line of each measurement of a file by name, for each machine that measured it."""
    found: dict[str, Lines] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        found.setdefault(machine(line), {})[alike(line["what"])] = line
    return found


def machine(line: dict[str, Any]) -> str:
    """The processor of a line and what torch could use of it."""
    name = line["hardware"].partition(",")[0].replace("(R)", "")
    return f"{name}, {line.get('capability', BEFORE)}"


def alike(what: str) -> str:
    """The name without the instruction set that some lines carry in it: the machine's column says it."""
    return what.replace("/avx2/", "/cpu/")


def table(machines: dict[str, Lines]) -> list[str]:
    """One file's measurements as Markdown, a column for each machine."""
    names = list(dict.fromkeys(what for lines in machines.values() for what in lines))
    rows = [f"| what | unit | {' | '.join(machines)} |", f"|---|---|{'---:|' * len(machines)}"]
    for what in names:
        found = [lines.get(what) for lines in machines.values()]
        unit = next(line["unit"] for line in found if line)
        rows.append(f"| `{what}` | {unit} | {' | '.join(map(cell, found))} |")
    return rows


def cell(line: dict[str, Any] | None) -> str:
    """A median with its quartiles."""
    if line is None:
        return ""
    spread = f" ({short(line['low'])} – {short(line['high'])})" if line["repeats"] > 1 else ""  # noqa: RUF001
    return short(line["value"]) + spread + " (dirty)" * line["dirty"]


def sources(machines: dict[str, Lines]) -> list[str]:
    """How each machine's lines were made."""
    found = []
    for name, lines in machines.items():
        commands = sorted({line["command"] for line in lines.values()})
        commits = sorted({line["commit"] for line in lines.values()})
        rounds = sorted({line["repeats"] for line in lines.values()})
        told = f"`{'`, `'.join(commands)}` at {', '.join(commits)}; rounds: {', '.join(map(str, rounds))}."
        found.append(f"- {name}: {told}")
    return found


def short(value: float) -> str:
    """A number as people read it."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def page() -> str:
    """The whole page."""
    parts = [
        "# Performance",
        "",
        "Written by `python -m benchmarks.tables` from `benchmarks/*.jsonl`, which hold command, settings,",
        "commit, hardware, threads, load and versions of every line. A column is a processor and what torch",
        "could use of it: `make bench-avx2` makes the `AVX2` column of a processor that can do more. Numbers",
        "are medians, with quartiles where there were several rounds. Contenders take turns within a round;",
        "ratios are made round by round. Nothing has been measured on a GPU yet.",
    ]
    for name, about in ABOUT.items():
        path = HERE / f"{name}.jsonl"
        if path.exists():
            machines = newest(path)
            parts += ["", f"## {name}", "", about, "", *table(machines), "", *sources(machines)]
    return "\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
