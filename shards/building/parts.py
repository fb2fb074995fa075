"""A build shared out among machines: each builds its parts of the shards, then one of them merges the parts.

The merged dataset is, byte for byte, that of one build. A part leaves a record when it is done; the merge
believes nothing else, and writes the index last. Kept out: who runs which part.
"""

from collections.abc import Callable, Sequence

from shards.building.build import check_range, finish, settings_of, shards_of, store_shards, take_built
from shards.building.cut import Cut, Failure
from shards.building.progress import Stored, is_final, mark_name, pack, parse
from shards.dataset import json_fields
from shards.dataset.index import Index
from shards.dataset.overwrite import begin
from shards.errors import ShardsError
from shards.sources.base import Source
from shards.sources.downloads import check_downloads
from shards.storage import store
from shards.tars.records import compact_json


def part_name(part: int, parts: int) -> str:
    """The file name of the record of part `part`, counted from 1."""
    return f"part-{part:06d}-of-{parts:06d}.json"


def part_shards(part: int, parts: int, shards: int) -> range:
    """The shards of a part: consecutive, all parts of one size or one more."""
    return range(shards * (part - 1) // parts, shards * part // parts)


def build_part(
    source: Source,
    out_url: str,
    cut: Cut,
    *,
    part: int,
    parts: int,
    workers: int | None = None,
    progress: bool = False,
    max_bad: float | None = None,
) -> int:
    """Store the shards of one part and its record; returns their number. A part that is there is left so.

    Raises ShardsError where this part alone has more bad pictures than the whole build takes, see `failures`.
    """
    check_range("parts", parts, 1, 10**6)
    check_range("part", part, 1, parts)
    store.make_folder(out_url)
    shards = part_shards(part, parts, shards_of(source, cut))
    if take_built(source, out_url, cut) or _is_built(source, out_url, cut, part, parts):
        return len(shards)
    if part == 1:  # for all parts; the merge looks whether it was done
        check_downloads(source, out_url)
    begin(out_url, settings_of(source, cut))
    stored = store_shards(
        source, out_url, cut, shards=shards, workers=workers, progress=progress, max_bad=max_bad
    )
    record = {"settings": settings_of(source, cut), "shards": [pack(result) for result in stored]}
    store.write_bytes(store.join(out_url, part_name(part, parts)), compact_json(record))
    for shard in shards:
        store.remove(store.join(out_url, mark_name(shard)))
    return len(shards)


def merge(
    source: Source,
    out_url: str,
    cut: Cut,
    *,
    parts: int,
    max_bad: float | None = None,
    on_failures: Callable[[Sequence[Failure]], None] | None = None,
) -> Index:
    """The dataset of all parts.

    Raises ShardsError that names the parts that are not there, or where all have too many bad pictures.
    """
    check_range("parts", parts, 1, 10**6)
    if found := take_built(source, out_url, cut):
        return found
    sizes = store.sizes_if_any(out_url)
    missing = [part for part in range(1, parts + 1) if part_name(part, parts) not in sizes]
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (" ..." if missing[8:] else "")
        raise ShardsError(
            f"{out_url}: of {parts} parts {len(missing)} are not built ({shown}); "
            f"run the same build with --part {missing[0]}/{parts} and so on, then merge again"
        )
    stored = [
        result for part in range(1, parts + 1) for result in _read(source, out_url, cut, part, parts, sizes)
    ]
    check_downloads(source, out_url)
    return finish(source, out_url, cut, stored=stored, max_bad=max_bad, on_failures=on_failures)


def _is_built(source: Source, out_url: str, cut: Cut, part: int, parts: int) -> bool:
    """Whether the record of this part is there and of this build, and its shards are."""
    if not store.exists(store.join(out_url, part_name(part, parts))):
        return False
    try:
        return all(is_final(each) for each in _read(source, out_url, cut, part, parts, store.sizes(out_url)))
    except ShardsError:
        return False


def _read(
    source: Source, out_url: str, cut: Cut, part: int, parts: int, sizes: dict[str, int]
) -> list[Stored]:
    """What a part stored. Raises ShardsError where its record or its shards are not those of this build."""
    where = store.join(out_url, part_name(part, parts))
    fields = json_fields.json_object(store.read_bytes(where), where)
    entries = json_fields.items(fields, "shards", where)
    expected = len(part_shards(part, parts, shards_of(source, cut)))
    if fields.get("settings") != settings_of(source, cut) or len(entries) != expected:
        raise ShardsError(f"{where} is of another build; remove it and run --part {part}/{parts} again")
    stored = [parse(entry, where, cut) for entry in entries]
    for shard in (result.shard for result in stored if result.shard):
        if sizes.get(shard.name) != shard.bytes:
            raise ShardsError(
                f"{out_url}: {shard.name} has {sizes.get(shard.name, 'no')} bytes, its part wrote "
                f"{shard.bytes}; run --part {part}/{parts} again"
            )
    return stored
