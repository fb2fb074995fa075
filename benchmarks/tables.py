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
    "feed": "From storage to decoded batches, warm page cache, batches of 128, beside readers used instead.\n"
    "No reader with our JPEG decoder can be faster than `decoder_alone`.",
    "reads": "Requests and bytes of an epoch of 3,033,042 pictures over the least possible: counted.",
    "end_to_end": "Training on two ranks fed from an object store, against the step on a batch at hand.",
    "scaling": "Two ranks on two cores against one on one core; collectives of one step.",
    "faults": "Faults between the feed and a real object store, and what was served wrong.",
    "chaos": "Runs killed by SIGKILL at random moments, and whether they ended where an unbroken one ends.",
    "checkpoint": "What saving costs the loop.",
    "memory": "Memory of one rank without the feed, by network and images of that rank.",
    "start": "From the command to the first step.",
    "slurm": "Interruptions of training on a real Slurm of four nodes, and how many ended as unbroken.",
    "ingest": "Making shards from large sources.",
    "dedup": "Finding duplicates.",
}


def newest(path: Path) -> dict[str, dict[str, Any]]:
    """The last line of each measurement of a file, by name."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {line["what"]: line for line in lines}


def table(lines: dict[str, dict[str, Any]]) -> list[str]:
    """One file's measurements as Markdown."""
    rows = ["| what | median | quartiles | unit | rounds | commit |", "|---|---:|---:|---|---:|---|"]
    for what, line in lines.items():
        spread = f"{short(line['low'])} – {short(line['high'])}" if line["repeats"] > 1 else ""  # noqa: RUF001
        mark = " (dirty)" if line["dirty"] else ""
        columns = (f"`{what}`", short(line["value"]), spread, line["unit"], line["repeats"])
        rows.append("| " + " | ".join(map(str, columns)) + f" | {line['commit']}{mark} |")
    return rows


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
        "commit, hardware and versions of every line. Contenders take turns within a round; ratios are made",
        "round by round. Nothing has been measured on a GPU yet.",
    ]
    for name, about in ABOUT.items():
        path = HERE / f"{name}.jsonl"
        if path.exists():
            lines = newest(path)
            commands = sorted({line["command"] for line in lines.values()})
            hardware = sorted({line["hardware"] for line in lines.values()})
            parts += ["", f"## {name}", "", about, "", *table(lines), ""]
            parts += [f"`{'`, `'.join(commands)}` on {'; '.join(hardware)}."]
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
