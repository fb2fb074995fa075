"""Images per second from storage to decoded uint8 batches: ours against webdataset as installed, side by
side.

Drawn rooms of 64x64, warm page cache, batches of 128; no training.
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image

from benchmarks.record import interleaved, ratios, record
from dcgan_dist.stream.feed import Feed
from dcgan_dist.stream.plan import Plan
from shards.build import build
from shards.index import load
from shards.reader import Blocks
from shards.sources.rooms import Rooms

BATCH = 128


def _ours(url: str, threads: int) -> Callable[[], int]:
    blocks = Blocks(url, load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=0)

    def run() -> int:
        with Feed(blocks, plan, lanes=range(BATCH), threads=threads) as feed:
            for _ in range(plan.steps_per_epoch):
                feed.next_batch()
        return plan.steps_per_epoch * BATCH

    return run


def _webdataset(url: str, extension: str) -> Callable[[], int]:
    shards = sorted(str(path) for path in Path(url).glob("*.tar"))

    def decode(sample: dict[str, bytes]) -> np.ndarray:
        data = io.BytesIO(sample[extension])
        if extension == "npy":
            return np.load(data, allow_pickle=False)
        return np.asarray(Image.open(data).convert("RGB"))

    def run() -> int:
        stream = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0).shuffle(1000).map(decode)
        return sum(len(batch) for batch in stream.batched(BATCH, collation_fn=np.stack))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for encoding in ("npy", "jpg"):
            url = f"{folder}/{encoding}"
            build(Rooms(args.images, size=args.size), url, size=args.size, encoding=encoding)
            config = {"images": args.images, "size": args.size, "encoding": encoding, "batch_images": BATCH}
            contenders = {
                "ours_1_thread": _ours(url, 1),
                "ours_2_threads": _ours(url, 2),
                "webdataset": _webdataset(url, encoding),
            }
            rates = interleaved(contenders, repeats=args.repeats)
            for name, values in rates.items():
                record("feed", f"feed/{encoding}/{name}", values, unit="images/s", config=config)
            against = ratios(rates["ours_2_threads"], rates["webdataset"])
            record("feed", f"feed/{encoding}/ratio_to_webdataset", against, unit="ratio", config=config)


if __name__ == "__main__":
    main()
