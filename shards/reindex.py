"""An index for tars that have none, by one pass over them; ours or any webdataset tars of one image size.

Kept out: changing a shard; this only reads them.
"""

import re
from collections.abc import Callable
from contextlib import closing

import numpy as np

from shards import dali as dali_index
from shards import index as indexes
from shards import store
from shards.blocks import default_block_samples
from shards.errors import ShardsError
from shards.flight import in_order
from shards.index import Index, Shard
from shards.scan import Looks, Scanned, check_shapes, scan


def reindex(
    url: str,
    *,
    block_samples: int | None = None,
    dali: bool = False,
    on_shard: Callable[[Shard], object] | None = None,
) -> Index:
    """Read every tar at `url` and write its index. Block size, classes and source of an old one are kept.

    With `dali`, an index for DALI goes beside each shard. Several shards are read at once; `on_shard` hears
    of each, in order.
    """
    lengths = _tars(url)
    old = _old_index(url)
    if block_samples is None and old:
        block_samples = old.block_samples
    if block_samples is not None and not 1 <= block_samples <= indexes.MAX_BLOCK_SAMPLES:
        raise ShardsError(
            f"--block-images {block_samples} is outside [1, {indexes.MAX_BLOCK_SAMPLES}]; give one inside"
        )

    def read(name: str) -> Scanned:
        return scan(url, name, lengths[name], block_samples=block_samples, for_dali=dali)

    looks, shards, tables = Looks(), [], []
    with closing(in_order(read, lengths)) as results:
        for scanned in results:
            _join(looks, scanned.looks, store.join(url, scanned.shard.name))
            if dali:
                name = dali_index.index_name(scanned.shard.name)
                store.write_bytes(store.join(url, name), scanned.dali)
            shards.append(_with_marks(scanned.shard, old))
            tables.append(scanned.blocks)
            if on_shard:
                on_shard(scanned.shard)
    ((encoding, size, _),) = looks.shapes
    index = Index(
        version=indexes.VERSION,
        encoding=encoding,
        image_size=size,
        block_samples=block_samples or default_block_samples(size),
        record_bytes=looks.strides.pop() if len(looks.strides) == 1 else 0,
        classes=old.classes if old else _classes(looks.labels),
        shards=tuple(shards),
        blocks_sha256="",
        source=old.source if old else {"source": "index"},
    )
    return indexes.save(url, index, np.concatenate(tables))


def _tars(url: str) -> dict[str, int]:
    """The length of each tar, by name; hidden files are passed by."""
    found = {
        name: length
        for name, length in store.sizes(url).items()
        if name.endswith(".tar") and not name.startswith(".")
    }
    if not found:
        raise ShardsError(f"{url} holds no .tar files; to make some run: python -m shards build --help")
    for name in found:
        if not re.fullmatch(indexes.SHARD_NAME, name):
            raise ShardsError(f"{url}: the name {name!r} has control signs or a backslash; rename the tar")
    return found


def _join(looks: Looks, more: Looks, where: str) -> None:
    """Add what a shard holds to what is known. Raises ShardsError where they do not go together."""
    for shape, key in more.shapes.items():
        looks.shapes.setdefault(shape, key)
    check_shapes(looks.shapes, where)
    looks.strides |= more.strides
    looks.labels |= more.labels


def _old_index(url: str) -> Index | None:
    try:
        return indexes.load(url)
    except ShardsError:
        return None


def _with_marks(shard: Shard, old: Index | None) -> Shard:
    """`shard`, with what the old index marked as removed where its bytes are still the same."""
    marked = (each for each in (old.shards if old else ()) if each.removed)
    same = (each for each in marked if (each.name, each.sha256) == (shard.name, shard.sha256))
    return next(same, shard)


def _classes(labels: set[int]) -> tuple[str, ...]:
    high = max(labels, default=-1)
    return tuple(str(label) for label in range(high + 1)) if 0 <= high < 10**6 else ()
