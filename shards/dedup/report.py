"""What a de-duplication found, in numbers, and a page of pairs to judge by eye.

The paper judged so: fewer than 1 in 100 collisions were false. Kept out: marks.
"""

import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards.dataset import json_fields
from shards.dataset.reader import Blocks
from shards.dedup.grouping import group
from shards.dedup.hashing import BITS, as_words
from shards.dedup.removed import FOLDER
from shards.dedup.settings import Settings
from shards.errors import MissingError, ShardsError
from shards.storage import store

PAGE_NAME = "page.png"
PAGE_PAIRS = 100
PAGE_COLUMNS = 5
CELL = 96
MARGIN = 14


def report(hashes: NDArray[np.uint8], groups: NDArray[np.int64], settings: Settings) -> dict[str, Any]:
    """Counts, sizes of the buckets, and how well the bits are used."""
    sizes, numbers = np.unique(np.bincount(groups), return_counts=True)
    buckets = {str(size): int(number) for size, number in zip(sizes, numbers, strict=True) if size}
    told: dict[str, Any] = {
        "hash": settings.hash,
        "radius": settings.radius,
        "images": len(groups),
        "removed": int(len(groups) - numbers[sizes > 0].sum()),
        "buckets_by_size": buckets,
        "perceptual_removes": _removes(hashes, perceptual=True),
    }
    if settings.hash == "autoencoder":
        shares = np.zeros(BITS)
        for start in range(0, len(hashes), 2**16):
            shares += np.unpackbits(hashes[start : start + 2**16, : BITS // 8], axis=1).sum(axis=0)
        shares /= max(1, len(hashes))
        told |= {
            "bit_shares": [round(float(share), 4) for share in shares],
            "dead_bits": int(((shares == 0) | (shares == 1)).sum()),
            "entropy_bits": round(float(sum(map(_entropy, shares))), 2),
        }
    return told


def write_page(
    blocks: Blocks, removed: NDArray[np.int64], survivor: NDArray[np.int64]
) -> list[dict[str, int]]:
    """Draw up to PAGE_PAIRS numbered pairs, survivor left and removed right; returns the pairs."""
    pairs = list(zip(survivor[:PAGE_PAIRS].tolist(), removed[:PAGE_PAIRS].tolist(), strict=True))
    where = store.join(blocks.url, FOLDER, PAGE_NAME)
    if not pairs:
        store.remove(where)
        return []
    pictures = blocks.at(sorted({place for pair in pairs for place in pair}))
    rows = -(-len(pairs) // PAGE_COLUMNS)
    width, height = 2 * CELL + MARGIN, CELL + MARGIN + 4
    page = Image.new("RGB", (PAGE_COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(page)
    for number, pair in enumerate(pairs):
        left, top = number % PAGE_COLUMNS * width, number // PAGE_COLUMNS * height
        draw.text((left + 2, top + 1), str(number), fill="black")
        for side, place in enumerate(pair):
            picture = Image.fromarray(pictures[place]).resize((CELL - 2, CELL - 2))
            page.paste(picture, (left + side * CELL, top + MARGIN))
    stream = io.BytesIO()
    page.save(stream, "PNG")
    store.write_bytes(where, stream.getvalue())
    return [{"kept": kept, "removed": gone} for kept, gone in pairs]


def judge(url: str, wrong: Sequence[int]) -> dict[str, Any]:
    """Write into the report which pairs of the page are no duplicates; returns precision and interval.

    The interval is Wilson's at 95 %. Raises ShardsError where there is no page, or not these pairs on it.
    """
    where = store.join(url, FOLDER, "report.json")
    try:
        told = json_fields.json_object(store.read_bytes(where), where)
    except MissingError as error:
        raise ShardsError(f"{url} has no report; run: python -m shards dedup {url}") from error
    pairs = len(json_fields.items(told, "page", where))
    for number in wrong:
        if not 0 <= number < pairs:
            raise ShardsError(f"wrong={number} is no pair of the page; give numbers in [0, {pairs})")
    if not pairs:
        raise ShardsError(f"{url}: nothing was removed, so there is nothing to judge")
    low, high = wilson(pairs - len(set(wrong)), pairs)
    told["judged"] = {
        "pairs": pairs,
        "wrong": sorted(set(wrong)),
        "precision": round(1 - len(set(wrong)) / pairs, 4),
        "interval": [round(low, 4), round(high, 4)],
    }
    store.write_bytes(where, json.dumps(told, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    judged: dict[str, Any] = told["judged"]
    return judged


def wilson(right: int, judged: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `right` of `judged` were seen."""
    z, share = 1.96, right / judged
    centre = share + z * z / (2 * judged)
    half = z * math.sqrt(share * (1 - share) / judged + z * z / (4 * judged * judged))
    scale = 1 + z * z / judged
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _removes(hashes: NDArray[np.uint8], *, perceptual: bool) -> int:
    groups = group(*as_words(hashes, perceptual=perceptual))
    return len(groups) - int(groups.max(initial=-1)) - 1


def _entropy(share: float) -> float:
    return 0.0 if share in (0, 1) else -share * math.log2(share) - (1 - share) * math.log2(1 - share)
