"""`make demo` in a fresh clone, set-up and all: seconds from the command to the line that says where to look.

Every part is timed by the lines that the command prints. pip may use its cache of downloads.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.record import record

ROOT = Path(__file__).parent.parent
PARTS = {"-m shards build": "set_up", "-m dcgan_dist.train": "draw", "-m dcgan_dist.evaluate": "train"}
"""A command that the demo starts, and the part that is over with it."""


def demo_seconds(folder: Path) -> dict[str, float]:
    """Seconds of each part and of all, by name."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    marks = {"began": time.perf_counter()}
    with subprocess.Popen(["make", "demo"], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            for words, part in PARTS.items():
                if words in line and part not in marks:
                    marks[part] = time.perf_counter()
    assert process.returncode == 0, "the demo failed"
    marks["evaluate"] = time.perf_counter()
    times = list(marks.values())
    parts = {name: times[i + 1] - times[i] for i, name in enumerate(list(marks)[1:])}
    return {"demo": times[-1] - times[0]} | parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    taken = []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            taken.append(demo_seconds(Path(folder) / "clone"))
    for name in taken[0]:
        what = "start/demo_seconds" + (f"/{name}" if name != "demo" else "")
        record("start", what, [each[name] for each in taken], unit="s", config={"ranks": 2})


if __name__ == "__main__":
    main()
