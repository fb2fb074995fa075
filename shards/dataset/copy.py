"""A dataset from one place to another, local or remote: shards first, index last, every byte checked.

A copy that was stopped leaves no dataset, and goes on when it is called again. Kept out: bars and words,
which are the command line's.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from shards.dataset import index as indexes
from shards.dataset import json_fields
from shards.dataset.index import Index, Shard
from shards.dataset.overwrite import is_same, not_ours
from shards.errors import DamagedError, MissingError, ShardsError
from shards.storage import store
from shards.storage.pieces import PIECE_BYTES
from shards.tars import dali

THREADS = 8
MEMORY_BYTES = 2**30
"""Shards under way are held whole; fewer are where they are large."""


@dataclass(frozen=True, slots=True)
class Copied:
    """How many shards were copied and with how many bytes, and how many were there before."""

    shards: int
    bytes: int
    kept: int


def copy(
    url: str,
    out_url: str,
    *,
    threads: int = THREADS,
    fast: bool = False,
    overwrite: bool = False,
    on_shard: Callable[[Shard], object] | None = None,
) -> Copied:
    """Copy the dataset at `url` to `out_url`. A shard that is there is read and kept if its sha256 is right.

    With `fast` its length is enough. Indexes for DALI go with their shards. Raises ShardsError where another
    dataset is, unless `overwrite`.
    """
    if threads < 1:
        raise ShardsError(f"threads={threads} copies nothing; give 1 or more")
    if is_same(url, out_url):
        raise ShardsError(f"{url} and {out_url} are the same place; give another to copy to")
    index = indexes.load(url, pictures=False)
    tables = _read_tables(url, index)
    store.make_folder(out_url)
    url = index.tars_at(url)
    here, there = store.sizes(url), store.sizes_if_any(out_url)
    ours = overwrite or indexes.INDEX_NAME in there
    stale = _clear(out_url, index, tables[indexes.INDEX_NAME], overwrite=overwrite)
    if not ours:
        _check_free(url, out_url, index, tables, there)
    work = partial(_copy_shard, url, out_url, here, there, fast=fast, ours=ours)
    copied = []
    with closing(_in_threads(work, index, threads)) as results:
        for shard, new in zip(index.shards, results, strict=True):
            copied += [shard] * new
            if on_shard:
                on_shard(shard)
    for name in sorted(stale & there.keys()):
        store.remove(store.join(out_url, name))
    for name, data in tables.items():
        store.write_bytes(store.join(out_url, name), data)
    return Copied(len(copied), sum(shard.bytes for shard in copied), len(index.shards) - len(copied))


def _copy_shard(
    url: str,
    out_url: str,
    here: Mapping[str, int],
    there: Mapping[str, int],
    shard: Shard,
    *,
    fast: bool,
    ours: bool,
) -> bool:
    """Whether the shard had to be copied. Raises ShardsError where another lies that is not `ours`."""
    kept = there.get(shard.name) == shard.bytes and (fast or _sha256(out_url, shard) == shard.sha256)
    name = dali.index_name(shard.name)
    if not kept:
        if shard.name in there and not ours:
            raise not_ours(out_url, [shard.name])
        if name in there:
            store.remove(store.join(out_url, name))
        store.write_bytes(store.join(out_url, shard.name), _read_shard(url, shard))
    if name in here and not (kept and fast and there.get(name) == here[name]):
        store.write_bytes(store.join(out_url, name), store.read_bytes(store.join(url, name)))
    return not kept


def _in_threads(work: Callable[[Shard], bool], index: Index, threads: int) -> Generator[bool, None, None]:
    """`work` done for each shard, in order; what was not begun is left when one fails."""
    largest = max(1, *(shard.bytes for shard in index.shards))
    pool = ThreadPoolExecutor(max(1, min(threads, len(index.shards), MEMORY_BYTES // largest)))
    try:
        yield from pool.map(work, index.shards)
    finally:
        pool.shutdown(cancel_futures=True)


def _read_tables(url: str, index: Index) -> dict[str, bytes]:
    """`blocks.npy` and `index.json`, as they are to be, in the order of writing."""
    indexes.load_blocks(url, index)  # tells what to do where it is damaged
    where = store.join(url, indexes.INDEX_NAME)
    data = store.read_bytes(where)
    blocks = store.read_bytes(store.join(url, indexes.BLOCKS_NAME))
    same = indexes.parse(json_fields.json_object(data, where), where) == index
    if not same or hashlib.sha256(blocks).hexdigest() != index.blocks_sha256:
        raise ShardsError(f"{url} changes while it is copied; wait until it is built, then copy again")
    if index.tars:  # those of the copy lie beside its index
        data = indexes.dump(replace(index, tars=""))
    return {indexes.BLOCKS_NAME: blocks, indexes.INDEX_NAME: data}


def _clear(out_url: str, index: Index, wanted: bytes, *, overwrite: bool) -> set[str]:
    """Take away the index of another dataset; the names of its files that this one has not."""
    where = store.join(out_url, indexes.INDEX_NAME)
    if not store.exists(where) or store.read_bytes(where) == wanted:
        return set()
    if not overwrite:
        raise ShardsError(f"{out_url} already holds another dataset; choose another place, or --overwrite it")
    try:
        shards = indexes.load(out_url, pictures=False).shards
    except ShardsError:  # damaged; its shards are nobody's
        shards = ()
    store.remove(where)
    old = {shard.name for shard in shards} - {shard.name for shard in index.shards}
    return old | {dali.index_name(name) for name in old}


def _check_free(
    url: str, out_url: str, index: Index, tables: Mapping[str, bytes], there: Mapping[str, int]
) -> None:
    """Raise ShardsError where files lie that a stopped copy of this dataset cannot have left."""
    foreign = []
    for shard in index.shards:
        name = dali.index_name(shard.name)
        if there.get(shard.name, shard.bytes) != shard.bytes:
            foreign.append(shard.name)
        if name in there and not _is_copy(url, out_url, name):
            foreign.append(name)
    table = indexes.BLOCKS_NAME
    if table in there and store.read_bytes(store.join(out_url, table)) != tables[table]:
        foreign.append(table)
    if foreign:
        raise not_ours(out_url, foreign)


def _is_copy(url: str, out_url: str, name: str) -> bool:
    try:
        wanted = store.read_bytes(store.join(url, name))
    except MissingError:
        return False
    return store.read_bytes(store.join(out_url, name)) == wanted


def _sha256(url: str, shard: Shard) -> str:
    where, found = store.join(url, shard.name), hashlib.sha256()
    for start in range(0, shard.bytes, PIECE_BYTES):
        found.update(store.read_range(where, start, min(start + PIECE_BYTES, shard.bytes)))
    return found.hexdigest()


def _read_shard(url: str, shard: Shard) -> bytes:
    """The bytes of a shard that its index vouches for."""
    where = store.join(url, shard.name)
    try:
        return store.read_bytes(where, check=lambda data: hashlib.sha256(data).hexdigest() == shard.sha256)
    except DamagedError as error:
        told = f"{where} is not what index.json says; run: python -m shards verify {url}"
        raise ShardsError(told) from error
