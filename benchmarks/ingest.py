"""LSUN to shards: the rate beside what decoding and shrinking alone take, and memory at the real size.

`share` builds from an LMDB of 256-pixel WebP pictures and, in turns in the same process, decodes and shrinks
the same bytes. `scale` scans and cuts an LMDB of 3,033,042 small JPEGs (about 12 GB of disk, removed after).
"""

import argparse
import hashlib
import io
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from benchmarks.record import ratios, record
from shards.building.build import build
from shards.pictures.codec import decode, to_square
from shards.sources.drawn.rooms import Rooms
from shards.sources.published.lsun import Lsun

ENTRIES = 3_033_042


def _pictures(count: int, size: int, form: str) -> list[bytes]:
    """Drawn rooms, 4 : 3, shorter side `size`, with noise: about as many bytes as photographs."""
    found = []
    rng = np.random.default_rng(0)
    for number in range(count):
        room = Rooms(count, size * 4 // 3).item(number).image[:size].astype(int)
        pixels = np.clip(room + rng.normal(0, 8, room.shape), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, form, quality=75)
        found.append(stream.getvalue())
    return found


def _write_lmdb(path: str, pictures: list[bytes], entries: int) -> None:
    """`entries` keys as LSUN's, in order, over the same few pictures."""
    step = 2**160 // (entries + 1)
    with lmdb.open(path, map_size=2**40, sync=False, writemap=False) as env:
        for start in range(0, entries, 50_000):
            with env.begin(write=True) as transaction:
                for number in range(start, min(entries, start + 50_000)):
                    key = f"{(number + 1) * step:040x}".encode()
                    transaction.put(key, pictures[number % len(pictures)], append=True)


def _share(images: int, repeats: int) -> None:
    pictures = _pictures(100, 256, "WEBP")
    with tempfile.TemporaryDirectory() as folder:
        _write_lmdb(f"{folder}/lmdb", pictures, images)
        source = Lsun(f"{folder}/lmdb")

        def ours() -> int:
            build(source, f"{folder}/out", size=64, workers=1, overwrite=True)
            return images

        def bound() -> int:
            for number in range(images):
                to_square(decode(pictures[number % len(pictures)]), 64)
            return images

        # By the processor's time, which others on the machine hardly lengthen; build runs in this process.
        rates: dict[str, list[float]] = {"build": [], "decode": []}
        for _ in range(repeats):
            for name, run in (("build", ours), ("decode", bound)):
                began = time.process_time()
                rates[name].append(run() / (time.process_time() - began))
    size = sum(map(len, pictures)) // len(pictures)
    config = {
        "images": images,
        "picture": "341 x 256 WebP",
        "picture_bytes": size,
        "size": 64,
        "clock": "CPU",
    }
    for name, values in rates.items():
        record("ingest", f"ingest/lsun_{name}", values, unit="images per CPU second", config=config)
    share = ratios(rates["build"], rates["decode"])
    record("ingest", "ingest/lsun_share_of_decode_bound", share, unit="ratio", config=config)


class _Memory:
    """The most private memory, in MB, that this process and its children held together."""

    def __init__(self) -> None:
        self.peak_mb, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Memory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.peak_mb = max(self.peak_mb, sum(map(_private_mb, _family(os.getpid()))))


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task").glob("*/children")
        found = [int(child) for path in children for child in path.read_text().split()]
    except OSError:
        return []
    return [pid, *(each for child in found for each in _family(child))]


def _private_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _scale(entries: int, workers: int, folder: str | None) -> None:
    top = tempfile.mkdtemp(dir=folder)
    try:
        _write_lmdb(f"{top}/lmdb", _pictures(100, 24, "JPEG"), entries)
        with _Memory() as memory:
            sources: list[Lsun] = []
            scan_seconds = _timed(lambda: sources.append(Lsun(f"{top}/lmdb")))
            seconds = _timed(lambda: build(sources[0], f"{top}/out", size=16, workers=workers))
        total = hashlib.sha256(Path(f"{top}/out/index.json").read_bytes()).hexdigest()
    finally:
        shutil.rmtree(top)
    config = {"entries": entries, "workers": workers, "size": 16, "index_sha256": total}
    record("ingest", "ingest/lsun_scan_seconds", [scan_seconds], unit="s", config=config)
    record("ingest", "ingest/lsun_scale_rate", [entries / seconds], unit="images/s", config=config)
    record("ingest", "ingest/lsun_peak_private_memory", [memory.peak_mb], unit="MB", config=config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("share", "scale"))
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where the LMDB and the shards lie meanwhile")
    args = parser.parse_args()
    if args.what == "share":
        _share(args.images, args.repeats)
    else:
        _scale(args.entries, args.workers, args.folder)


if __name__ == "__main__":
    main()
