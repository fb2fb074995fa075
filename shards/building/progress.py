"""What became of each shard of a build, and the mark that it leaves when it is done.

A build that was stopped believes the marks of its own settings whose shards are there, and cuts the others.
Kept out: cutting.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shards.building.cut import MISSING, Cut, Failure, shard_name
from shards.dataset import json_fields
from shards.dataset.blocks import BLOCK_DTYPE, BlockTable
from shards.dataset.index import Shard, parse_shard
from shards.dataset.overwrite import BEGUN_NAME
from shards.errors import ShardsError
from shards.sources.downloads import VERIFIED_NAME
from shards.storage import store
from shards.tars.records import compact_json

MARK_NAME = r"shard-(\d{6})\.done\.json"
PART_NAME = r"part-\d{6}-of-\d{6}\.json"
BROKEN_OFF = r"\.(shard|part|blocks|failures)\b.*\.tmp"
"""Writes of a build that was killed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a worker hands back; the bytes themselves stay with it. `shard` is None where it was empty."""

    shard: Shard | None
    blocks: BlockTable
    items: int
    failures: list[Failure]


def mark_name(shard: int) -> str:
    """The file name of the mark of shard number `shard`."""
    return shard_name(shard).replace(".tar", ".done.json")


def save_mark(out_url: str, shard: int, settings: dict[str, Any], result: Stored) -> None:
    """Say that the shard is done, after it is stored."""
    data = compact_json({"settings": settings, "result": pack(result)})
    store.write_bytes(store.join(out_url, mark_name(shard)), data)


def load_marks(out_url: str, shards: Sequence[int], settings: dict[str, Any], cut: Cut) -> dict[int, Stored]:
    """Those of `shards` that a stopped build with these settings has done, and whose tars are there."""
    sizes, wanted = store.sizes_if_any(out_url), set(shards)
    found = {}
    for name in sizes:
        match = re.fullmatch(MARK_NAME, name)
        if not match or int(match[1]) not in wanted:
            continue
        try:
            fields = json_fields.json_object(store.read_bytes(store.join(out_url, name)), name)
            result = parse(fields.get("result"), name, cut)
        except (ShardsError, ValueError):
            continue  # not believed, so cut again
        whole = result.shard is None or sizes.get(result.shard.name) == result.shard.bytes
        if whole and is_final(result) and fields.get("settings") == settings:
            found[int(match[1])] = result
    return found


def is_final(result: Stored) -> bool:
    """Whether cutting the shard again would give the same: a file that was missing may be there by now."""
    return all(failure.reason != MISSING for failure in result.failures)


def sweep(out_url: str) -> None:
    """Remove all that a build leaves on its way: marks, records of parts, writes that were broken off."""
    names = store.sizes_if_any(out_url)
    left = f"{MARK_NAME}|{PART_NAME}|{VERIFIED_NAME}|{BROKEN_OFF}" if BEGUN_NAME in names else BROKEN_OFF
    for name in names:
        if re.fullmatch(left, name):
            store.remove(store.join(out_url, name))
    store.remove(store.join(out_url, BEGUN_NAME))


def pack(result: Stored) -> dict[str, Any]:
    """`result` as JSON."""
    return {
        "shard": asdict(result.shard) if result.shard else None,
        "blocks": result.blocks.tobytes().hex(),
        "items": result.items,
        "failures": [asdict(failure) for failure in result.failures],
    }


def parse(entry: object, where: str, cut: Cut) -> Stored:
    """What `pack` made of a result. Raises ShardsError for anything else."""
    fields = json_fields.as_object(entry, "a shard", where)
    shard = parse_shard(fields["shard"], where) if fields.get("shard") is not None else None
    packed = bytes.fromhex(json_fields.text(fields, "blocks", where, pattern="([0-9a-f]{2})*"))
    rows = -(-shard.samples // cut.block_samples) if shard else 0
    if len(packed) != rows * BLOCK_DTYPE.itemsize:
        raise ShardsError(f"{where} does not hold the {rows} blocks of its shard; remove it, build it again")
    failures = [_parse_failure(each, where) for each in json_fields.items(fields, "failures", where)]
    items = json_fields.whole_number(fields, "items", where)
    return Stored(shard, np.frombuffer(packed, BLOCK_DTYPE), items, failures)


def _parse_failure(entry: object, where: str) -> Failure:
    fields = json_fields.as_object(entry, "a failure", where)
    position = json_fields.whole_number(fields, "position", where)
    name, reason, error = (
        json_fields.text(fields, each, where, pattern="(?s:.*)") for each in ("name", "reason", "error")
    )
    return Failure(position, name, reason, error)
