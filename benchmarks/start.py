"""From the command to its first step; and from the settings to the first batch, by how far into the epoch a
run goes on.

3,033,042 samples as LSUN's bedrooms at 64x64, in sparse files: where they lie is as in a real set, what is in
them is zeros. The command trains a small network, so that its time is that of starting, not of the step; the
first batch leaves out starting Python and torch, building the networks, reading the checkpoint.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import record
from dcgan_dist.stream.feed import Feed
from dcgan_dist.stream.plan import Plan
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.blocks import BLOCK_DTYPE, block_sum
from shards.dataset.index import Index, Shard
from shards.dataset.reader import Blocks
from shards.sources.drawn.rooms import Rooms

SAMPLES = 3_033_042
SHARD_SAMPLES = 20_000
BATCH = 128
SIZE = 64
SMALL_NET = "z16 k5 g 16@4 16@8 8@16 8@32 3@64 d 8@32 8@16 16@8 16@4"


def sparse_set(folder: Path) -> str:
    """A dataset of zeros, with a true index."""
    build(Rooms(2, size=SIZE), str(folder / "seed"), size=SIZE, shard_images=2, workers=1)
    seed = indexes.load(str(folder / "seed"))
    out = folder / "set"
    out.mkdir()
    per_block, per_record = seed.block_samples, seed.record_bytes
    counts = [min(SHARD_SAMPLES, SAMPLES - at) for at in range(0, SAMPLES, SHARD_SAMPLES)]
    sums = {n: block_sum(bytes(n * per_record)) for n in range(1, per_block + 1)}
    shards, tables = [], []
    for number, count in enumerate(counts):
        length = -(-(count * per_record + 1024) // 10240) * 10240
        shard = Shard(
            name=f"shard-{number:06d}.tar", samples=count, bytes=length, sha256="0" * 64, removed=()
        )
        with (out / shard.name).open("wb") as file:
            os.truncate(file.fileno(), length)
        shards.append(shard)
        rows = [min(per_block, count - at) for at in range(0, count, per_block)]
        table = np.zeros(len(rows), BLOCK_DTYPE)
        table["bytes"] = np.array(rows) * per_record
        table["offset"][1:] = np.cumsum(table["bytes"], dtype=np.uint64)[:-1]
        table["sum"] = [sums[n] for n in rows]
        tables.append(table)
    fields = {name: getattr(seed, name) for name in seed.__dataclass_fields__} | {"shards": tuple(shards)}
    indexes.save(str(out), Index(**fields), np.concatenate(tables))
    return str(out)


def first_batch_seconds(url: str, share: float) -> float:
    """To read the index, plan the epoch and serve the batch at `share` of it."""
    began = time.perf_counter()
    index = indexes.load(url)
    indexes.check_listing(url, index)
    blocks = Blocks(url, index)
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=0)
    with Feed(blocks, plan, lanes=range(BATCH), first_step=int(share * plan.steps_per_epoch)) as feed:
        feed.next_batch()
        return time.perf_counter() - began


def command_seconds(url: str, run: str) -> float:
    """From `python -m dcgan_dist.train` to the line of its first step."""
    settings = {
        "data.url": url,
        "data.batch_images": BATCH,
        "model.net": SMALL_NET,
        "train.steps": 1,
        "train.device": "cpu",
        "run.dir": run,
        "run.log_steps": 1,
    }
    words = [f"--{name}={value}" for name, value in settings.items()]
    began = time.perf_counter()
    command = [sys.executable, "-m", "dcgan_dist.train", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        taken = [time.perf_counter() - began for line in process.stdout if line.startswith("step 1/1 ")]
    assert process.returncode == 0
    return taken[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = sparse_set(Path(folder))
        shares = (0.01, 0.5, 0.99)
        first_batch_seconds(url, 0)  # so that all find the files in the same cache
        taken = [[first_batch_seconds(url, share) for share in shares] for _ in range(args.repeats)]
        started = [command_seconds(url, f"{folder}/run-{turn}") for turn in range(args.repeats)]
    config = {"samples": SAMPLES, "batch_images": BATCH, "net": SMALL_NET}
    record("start", "start/first_step_seconds", started, unit="s", config=config)
    for share, values in zip(shares, zip(*taken, strict=True), strict=True):
        config = {"samples": SAMPLES, "batch_images": BATCH, "image_size": SIZE, "position": share}
        record("start", f"start/first_batch_seconds/{share:.0%}", values, unit="s", config=config)


if __name__ == "__main__":
    main()
