"""`make first-day-on-gpu`: everything that only a card can show, in one unattended go of at most 25 minutes.

First what must hold (`tests/test_gpu.py`, one line for each test with its seconds), then what a step costs,
what a card remembers and what storage delivers, then an epoch of drawn rooms as large as LSUN's bedrooms with
samples kept. What a part shows is written as it comes, so that a card that is taken away takes nothing along;
a part that fails stops no other.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.record import record
from benchmarks.step import FILTERS_64

ROOT = Path(__file__).parent.parent
OUT = ROOT / "runs" / "first_day"
PICTURES = ROOT / "docs" / "first_day"
NETS = {"dcgan64": "dcgan64", "64_filters": FILTERS_64, "imagenet32": "imagenet32"}
COMPARED = [
    "plain_float32",
    "plain_bfloat16",
    "ours_float32",
    "ours_bfloat16",
    "ours_bfloat16_compiled",
    "ours_bfloat16_graphs",
]


@dataclass(frozen=True)
class Part:
    """One command with the seconds it may take, and what is read of what it left."""

    name: str
    words: list[str]
    seconds: int
    after: Callable[[], None] = lambda: None


def check() -> Part:
    """The tests that need a card."""
    results = OUT / "check.xml"
    words = [
        "pytest",
        "-m",
        "gpu",
        "tests/test_gpu.py",
        "-q",
        f"--junitxml={results}",
        "-o",
        "junit_family=xunit1",
    ]
    return Part("check", words, 420, lambda: keep_tests(results))


def keep_tests(results: Path) -> None:
    """A line for each test: 1 where it passed, with its seconds and what it noted."""
    for case in ET.parse(results).iter("testcase"):
        failed = [part.get("message", "")[:300] for part in case if part.tag in ("failure", "error")]
        if any(part.tag == "skipped" for part in case):
            continue
        notes = {item.get("name", ""): item.get("value", "") for item in case.iter("property")}
        config = {"test_seconds": float(case.get("time", "0")), **notes} | (
            {"failure": failed[0]} if failed else {}
        )
        name = case.get("name", "").removeprefix("test_")
        record("gpu", f"gpu/check/{name}", [float(not failed)], unit="passed", config=config)


def steps(name: str, batches: list[int], seconds: int) -> Part:
    """The step of one net, beside the plain loops."""
    sizes = [str(images) for images in batches]
    words = ["benchmarks.step", "--device", "cuda", "--net", NETS[name], "--batch-images", *sizes]
    return Part(f"step-{name}", [*words, "--repeats", "5", "--contenders", *COMPARED], seconds)


def rooms(images: int) -> list[Part]:
    """`images` drawn rooms, and one epoch of the paper's net on them with samples kept."""
    data, run = OUT / "rooms", OUT / "run"
    build = [
        "shards",
        "build",
        "rooms",
        str(data),
        "--images",
        str(images),
        "--encoding",
        "jpg",
        "--overwrite",
    ]
    train = ["dcgan_dist.train", "configs/lsun_bedroom.yaml", f"--data.url={data}", f"--run.dir={run}"]
    # A quarter of the epoch between two pictures of what is learnt.
    quarter = max(1, images // 128 // 4)
    train += ["--train.epochs=1", f"--run.sample_steps={quarter}", f"--run.checkpoint_steps={quarter}"]
    return [Part("rooms", build, 420), Part("epoch", train, 420, lambda: keep_epoch(run))]


def keep_epoch(run: Path) -> None:
    """Images per second of the epoch, and its samples."""
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [line["speed/images_per_second"] for line in logged if "speed/images_per_second" in line]
    waited = [line["speed/data_wait_share"] for line in logged if "speed/data_wait_share" in line]
    config = {"net": "dcgan64", "batch_images": 128, "steps": logged[-1]["step"]}
    record("gpu", "gpu/epoch/images", rates[1:] or rates, unit="images/s", config=config)
    if waited:
        record("gpu", "gpu/epoch/wait_share", waited, unit="share", config=config)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for picture in [run / "real.png", *sorted((run / "samples").glob("*.png"))]:
        shutil.copy(picture, PICTURES)


def parts(args: argparse.Namespace) -> list[Part]:
    """In the order of what one must know first."""
    listed = [
        check(),
        *(steps(name, args.batch_images, 240) for name in NETS),
        Part(
            "memory", ["benchmarks.memory", "--device", "cuda", "--images", *map(str, args.batch_images)], 120
        ),
        Part("feed", ["benchmarks.feed", "--images", "20000", "--repeats", "3"], 120),
        *rooms(args.rooms),
        Part("tables", ["benchmarks.tables"], 60),
    ]
    return [part for part in listed if not args.only or part.name in args.only]


def run(part: Part) -> str | None:
    """What went wrong, if anything; the part's output is beside the run."""
    log = OUT / f"{part.name}.log"
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        try:
            code = subprocess.run(
                [sys.executable, "-m", *part.words],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=part.seconds,
                check=False,
            ).returncode
            fault = f"exit code {code}" if code else None
        except subprocess.TimeoutExpired:
            fault = f"not done after {part.seconds} s"
    taken = time.monotonic() - began
    try:
        part.after()
    except (OSError, ET.ParseError, LookupError, ValueError) as error:
        fault = fault or f"left nothing to read ({error})"
    config = {"command": part.words} | ({"fault": fault} if fault else {})
    record("gpu", f"gpu/first_day/{part.name}", [taken], unit="s", config=config)
    print(f"{part.name}: {fault or 'done'} ({taken:.0f} s, see {log.relative_to(ROOT)})", flush=True)
    return fault


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-images", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--rooms", type=int, default=3_000_000, help="pictures of the epoch")
    parser.add_argument("--only", nargs="+", help="these parts, as check or step-dcgan64 (default: all)")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: torch sees no CUDA device here; this measures one", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    faults = {part.name: run(part) for part in parts(args)}
    failed = sorted(name for name, fault in faults.items() if fault)
    print(
        f"failed: {', '.join(failed)}"
        if failed
        else "all parts are done: benchmarks/gpu.jsonl, docs/first_day"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
