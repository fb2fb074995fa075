"""De-duplication: seconds and memory to bucket 1 to 30 million codes, and its hash beside imagededup's.

`buckets` draws codes whose bits hang together as an autoencoder's do, 9 % of them copies, each count in a
process of its own. `hashes` needs imagededup (its hashing part; torchvision is not needed for that).
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

from benchmarks.record import apart, record
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.splitmix import mix
from shards.dedup.grouping import group, survivors
from shards.dedup.run import dedup
from shards.dedup.settings import Settings
from shards.machine import peak_memory_bytes
from tests.shards.dedup.planted import KINDS, SIZE, Planted

COPIED = 0.0907
"""The share that the paper removed from LSUN."""

LATENTS = 60


def _codes(count: int) -> np.ndarray:
    """(count, 2) uint64: signs of 128 random projections of LATENTS normal numbers, with copies."""
    rng = np.random.default_rng(0)
    projections = rng.normal(size=(LATENTS, 128)).astype(np.float32)
    words = np.empty((count, 2), np.uint64)
    for start in range(0, count, 2**18):
        rows = words[start : start + 2**18]
        latent = rng.normal(size=(len(rows), LATENTS)).astype(np.float32)
        rows[:] = np.packbits(latent @ projections > 0, axis=1).view(np.uint64)
    copies = int(count * COPIED)
    words[rng.permutation(count)[:copies]] = words[rng.integers(0, count, copies)]
    return words


def _bucketing(count: int, radius: int) -> Callable[[], int]:
    words = _codes(count)
    high, low = words[:, 0].copy(), words[:, 1].copy()
    del words
    priority = mix(np.arange(count, dtype=np.uint64))

    def run() -> int:
        began = time.process_time()  # one thread; others on the machine do not count
        survivors(group(high, low, radius=radius), priority)
        seconds = time.process_time() - began
        peak_mb = peak_memory_bytes() / 2**20
        return int(seconds * 1e6) * 10**6 + int(peak_mb)  # one number is what a contender returns

    return run


def _buckets(millions: list[int], radius: int, repeats: int) -> None:
    for count in millions:
        with apart(_bucketing, count * 10**6, radius) as run:
            found = [divmod(run(), 10**6) for _ in range(repeats)]
        seconds, peak_mb = [micros / 1e6 for micros, _ in found], [float(mb) for _, mb in found]
        config = {
            "codes": count * 10**6,
            "radius": radius,
            "copied": COPIED,
            "latents": LATENTS,
            "clock": "CPU",
        }
        name = f"dedup/buckets_{count}m" + (f"_radius_{radius}" if radius else "")
        record("dedup", f"{name}_seconds", seconds, unit="s", config=config)
        record("dedup", f"{name}_peak_memory", peak_mb, unit="MB", config=config)


def _imagededup() -> Any:
    """imagededup's PHash; its networks, which need torchvision, are left out."""
    for name in ("", ".models", ".models.vision_transformer", ".transforms"):
        sys.modules.setdefault(f"torchvision{name}", MagicMock())
    from imagededup.methods import PHash

    return PHash(verbose=False)


def _score(source: Planted, pairs: set[tuple[int, int]]) -> dict[str, float]:
    """Recall of each kind, and the share of found pairs that are planted."""
    planted = {
        tuple(sorted((position, source.origin(position)[1]))): source.origin(position)[0]
        for position in range(source.rooms, source.samples)
    }
    right = [planted[pair] for pair in pairs if pair in planted]
    recall = {kind: right.count(kind) / source.copies for kind in KINDS}
    return recall | {"precision": len(right) / max(1, len(pairs))}


def _ours(url: str, settings: Settings) -> tuple[float, set[tuple[int, int]]]:
    began = time.process_time()
    dedup(url, settings)
    return time.process_time() - began, _groups_as_pairs(url, settings)


def _groups_as_pairs(url: str, settings: Settings) -> set[tuple[int, int]]:
    """Neighbours within each group of what dedup found."""
    from shards.dedup import hashing, run

    index = indexes.load(url)
    hashes = np.concatenate(
        [
            np.frombuffer(Path(f"{url}/dedup/{shard.name}.hashes").read_bytes()[32:], np.uint8).reshape(
                -1, run.ROW_BYTES
            )
            for shard in index.shards
        ]
    )
    words = hashing.as_words(hashes, perceptual=settings.hash == "perceptual")
    shades = hashing.colours(hashes) if settings.radius else None
    groups = group(*words, radius=settings.radius, colours=shades)
    order = np.argsort(groups, kind="stable")
    return {
        (min(one, other), max(one, other))
        for one, other in pairwise(order.tolist())
        if groups[one] == groups[other]
    }


def _encode(hasher: Any, source: Planted) -> tuple[float, dict[str, str]]:
    """CPU seconds without those of drawing, and imagededup's hash by position."""
    seconds, encodings = 0.0, {}
    for position in range(source.samples):
        image = source.item(position).image
        began = time.process_time()
        encodings[str(position)] = hasher.encode_image(image_array=image)
        seconds += time.process_time() - began
    return seconds, encodings


def _theirs(hasher: Any, encodings: dict[str, str], distance: int) -> tuple[float, set[tuple[int, int]]]:
    began = _all_cpu_seconds()
    found = hasher.find_duplicates(encoding_map=encodings, max_distance_threshold=distance)
    seconds = _all_cpu_seconds() - began
    pairs = {
        (min(int(one), int(other)), max(int(one), int(other)))
        for one, others in found.items()
        for other in others
    }
    return seconds, pairs


def _all_cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _hashes(rooms: int, copies: int) -> None:
    source = Planted(rooms, copies)
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/set"
        build(source, url, size=SIZE)
        seconds, pairs = _ours(url, Settings())
        _tell(source, "ours_radius_0", seconds, pairs)
        more, pairs = _ours(url, Settings(radius=4))  # the hashes are there already
        _tell(source, "ours_radius_4", seconds + more, pairs)
    hasher = _imagededup()
    seconds, encodings = _encode(hasher, source)
    for distance in (0, 10):
        more, pairs = _theirs(hasher, encodings, distance)
        _tell(source, f"imagededup_phash_{distance}", seconds + more, pairs)


def _tell(source: Planted, name: str, seconds: float, pairs: set[tuple[int, int]]) -> None:
    score = {key: round(value, 4) for key, value in _score(source, pairs).items()}
    config = {"rooms": source.rooms, "copies": source.copies, "size": SIZE, "clock": "CPU"} | score
    record("dedup", f"dedup/{name}_precision", [score["precision"]], unit="share", config=config)
    record("dedup", f"dedup/{name}_seconds", [seconds], unit="s", config=config)
    print(score)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("buckets", "hashes"))
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 3, 10, 30])
    parser.add_argument("--radius", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rooms", type=int, default=50_000)
    parser.add_argument("--copies", type=int, default=1000)
    args = parser.parse_args()
    if args.what == "buckets":
        _buckets(args.millions, args.radius, args.repeats)
    else:
        _hashes(args.rooms, args.copies)


if __name__ == "__main__":
    main()
