"""What a build gave, for whoever started it: `report.json` in numbers, `sheet.png` to look at.

Both are functions of the dataset. Kept out: what failed in detail, which is in `failures.json`.
"""

import io
import statistics
from collections.abc import Mapping

import numpy as np
from PIL import Image

from shards.building.failures import FAILURES_NAME
from shards.dataset import json_fields
from shards.dataset.index import Index
from shards.dataset.reader import Blocks
from shards.errors import MissingError
from shards.redact import redacted
from shards.storage import store
from shards.tars.records import compact_json

REPORT_NAME = "report.json"
SHEET_NAME = "sheet.png"
SHEET_SIDE = 10
"""The sheet shows up to 10 x 10 pictures."""


def has_sheet(url: str) -> bool:
    """Whether both are there."""
    return store.exists(store.join(url, REPORT_NAME)) and store.exists(store.join(url, SHEET_NAME))


def write_sheet(
    url: str, index: Index, *, missing: bool = False, passed_over: Mapping[str, int] | None = None
) -> None:
    """Write both beside the dataset, or only the `missing` one.

    `passed_over` counts, by kind, what the source did not take.
    """
    try:
        where = store.join(url, FAILURES_NAME)
        counts = json_fields.json_object(store.read_bytes(where), where).get("counts")
    except MissingError:
        counts = {}
    shard_bytes = sorted(shard.bytes for shard in index.shards)
    report = {
        "images": index.samples,
        "failures_by_reason": counts,
        "passed_over_by_kind": dict(passed_over or {}),
        "shards": len(index.shards),
        "bytes": index.bytes,
        "bytes_per_image": round(index.bytes / index.samples, 1),
        "shard_bytes": [shard_bytes[0], int(statistics.median(shard_bytes)), shard_bytes[-1]],
        "settings": index.source,
    }
    if not (missing and store.exists(store.join(url, REPORT_NAME))):
        store.write_bytes(store.join(url, REPORT_NAME), compact_json(redacted(report)) + b"\n")
    if not (missing and store.exists(store.join(url, SHEET_NAME))):
        store.write_bytes(store.join(url, SHEET_NAME), _draw(url, index))


def _draw(url: str, index: Index) -> bytes:
    """Pictures at even distances, row by row, as PNG."""
    count = min(index.samples, SHEET_SIDE**2)
    places = sorted({int(place) for place in np.linspace(0, index.samples - 1, count).round()})
    found = Blocks(url, index).at(places)
    size, rows = index.image_size, -(-len(places) // SHEET_SIDE)
    page = np.full((rows * size, min(len(places), SHEET_SIDE) * size, 3), 255, np.uint8)
    for number, place in enumerate(places):
        row, column = divmod(number, SHEET_SIDE)
        page[row * size : row * size + size, column * size : column * size + size] = found[place]
    stream = io.BytesIO()
    Image.fromarray(page).save(stream, "PNG")
    return stream.getvalue()
