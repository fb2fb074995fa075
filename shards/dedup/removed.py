"""What is marked as removed, in the index; and how it is taken back.

`marks.json` beside the hashes says which marks are ours, so that those of others stay. It is written before
the index, so that a stop in between leaves nothing that cannot be undone. Kept out: why something is removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shards.dataset import index as indexes
from shards.dataset import json_fields
from shards.dataset.index import Index
from shards.errors import MissingError, ShardsError
from shards.storage import store
from shards.tars.records import compact_json

FOLDER = "dedup"
MARKS_NAME = "marks.json"

Marks = Mapping[str, Sequence[int]]
"""Positions within a shard, by the shard's name."""


def load_marks(url: str, index: Index) -> dict[str, list[int]]:
    """Our marks of the shards that are still the same; none where nothing was de-duplicated."""
    where = store.join(url, FOLDER, MARKS_NAME)
    try:
        found = json_fields.json_object(store.read_bytes(where), where)
    except MissingError:
        return {}
    marks = {}
    for shard in index.shards:
        if shard.name in found:
            fields = json_fields.as_object(found[shard.name], shard.name, where)
            if json_fields.text(fields, "sha256", where) == shard.sha256:
                marks[shard.name] = list(json_fields.rising(fields, "removed", where, below=shard.samples))
    return marks


def without_marks(index: Index, marks: Marks) -> Index:
    """`index` as it was before `marks`."""
    return _with_removed(
        index, {shard.name: set(shard.removed) - set(marks.get(shard.name, ())) for shard in index.shards}
    )


def write_marks(url: str, marks: Marks) -> Index:
    """Replace our marks at `url` by `marks`; returns the index with them."""
    found = indexes.load(url)
    old = load_marks(url, found)
    index = without_marks(found, old)
    # Old and new ones until the index is written, so that whatever it holds then can be undone.
    _save(url, index, {name: {*old.get(name, ()), *marks.get(name, ())} for name in {*old, *marks}})
    marked = _with_removed(
        index, {shard.name: {*shard.removed, *marks.get(shard.name, ())} for shard in index.shards}
    )
    if marked != found:
        store.write_bytes(store.join(url, indexes.INDEX_NAME), indexes.dump(marked))
    _save(url, index, {name: set(places) for name, places in marks.items()})
    return marked


def undo(url: str) -> int:
    """Take back all our marks at `url`; returns how many. Raises ShardsError where there are none."""
    index = indexes.load(url)
    if not any(load_marks(url, index).values()):
        raise ShardsError(f"{url} has no marks of a de-duplication; nothing to undo")
    return write_marks(url, {}).kept - index.kept


def _with_removed(index: Index, removed: Mapping[str, set[int]]) -> Index:
    shards = tuple(replace(shard, removed=tuple(sorted(removed[shard.name]))) for shard in index.shards)
    return replace(index, shards=shards)


def _save(url: str, index: Index, marks: Mapping[str, set[int]]) -> None:
    where = store.join(url, FOLDER, MARKS_NAME)
    entries = [
        compact_json(shard.name)
        + b":"
        + compact_json({"removed": sorted(marks[shard.name]), "sha256": shard.sha256})
        for shard in index.shards
        if marks.get(shard.name)
    ]
    if entries:
        store.make_folder(store.join(url, FOLDER))
        store.write_bytes(where, b"{\n" + b",\n".join(entries) + b"\n}\n")
    else:
        store.remove(where)
