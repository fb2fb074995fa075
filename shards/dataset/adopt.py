"""An index for tars that have none, by one pass over them: pictures of one size, or samples of any kind.

Kept out: changing a shard; this only reads them.
"""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from shards.dataset import index as indexes
from shards.dataset.blocks import default_block_samples, is_table
from shards.dataset.index import Index, Shard
from shards.dataset.overwrite import BEGUN_NAME, is_same, not_ours
from shards.dataset.passed_over import Passed
from shards.dataset.scan import Looks, Scanned, check_shapes, find_tars, scan, usual_block_samples
from shards.errors import ShardsError, StoreError
from shards.redact import is_secret, redact
from shards.storage import store
from shards.storage.in_order import in_order
from shards.tars import dali as dali_index


def reindex(
    url: str,
    *,
    block_samples: int | None = None,
    dali: bool = False,
    overwrite: bool = False,
    samples: bool = False,
    out_url: str | None = None,
    on_shard: Callable[[Shard], object] | None = None,
    on_passed_over: Callable[[Passed], object] | None = None,
) -> Index:
    """Read every tar at `url` and write its index, there or at `out_url`.

    Block size, classes, marks and source of an old one are kept. Raises ShardsError where they would be
    lost, or where files lie that are not ours, unless `overwrite`. With `samples` the tars may hold any
    files, not only pictures of one size. With `dali`, an index for DALI goes beside each shard. Several
    shards are read at once; `on_shard` hears of each, in order, and `on_passed_over` of the files that are
    not served.
    """
    looks, found = Looks(), []
    tars = _elsewhere(url, out_url, dali=dali)
    out_url = out_url if tars and out_url else url
    lengths = _tars(url, looks.passed_over)
    old = _old_index(out_url, overwrite=overwrite)
    if not overwrite:
        _check_free(out_url, lengths, has_index=old is not None, dali=dali)
    block_samples = _block_samples(url, lengths, block_samples, old, samples=samples)
    read = partial(scan, url, block_samples=block_samples, for_dali=dali, pictures=not samples)
    with closing(_scan_all(url, lengths, looks, read, dali=dali)) as results:
        for scanned in results:
            found.append(scanned)
            if on_shard:
                on_shard(scanned.shard)
    shards = [_with_marks(scanned.shard, old) for scanned in found]
    if old and not overwrite:
        _check_marks(out_url, old, shards)
    if on_passed_over:
        on_passed_over(looks.passed_over)
    ((encoding, size, _),) = [(indexes.SAMPLES, 0, 0)] if samples else looks.shapes
    index = Index(
        version=indexes.VERSION,
        encoding=encoding,
        image_size=size,
        block_samples=block_samples or default_block_samples(size),
        record_bytes=looks.strides.pop() if len(looks.strides) == 1 else 0,
        classes=_classes(looks.labels, old.classes if old else ()),
        shards=tuple(shards),
        blocks_sha256="",
        source=old.source if old else {"source": "index"},
        tars=tars,
    )
    if tars:
        store.make_folder(out_url)
    return indexes.save(out_url, index, np.concatenate([scanned.blocks for scanned in found]))


def _elsewhere(url: str, out_url: str | None, *, dali: bool) -> str:
    """The place of the tars as an index at `out_url` is to name it, empty where it lies beside them."""
    if out_url is None or is_same(url, out_url):
        return ""
    if dali:
        raise ShardsError("--dali writes beside the tars and --out elsewhere; leave one of them out")
    if is_secret(url):
        raise ShardsError(
            f"{redact(url)} has a password or key in it, which the index would keep; give it by the "
            f"environment instead"
        )
    return url if "://" in url else str(Path(url).resolve())


def _block_samples(
    url: str, lengths: Mapping[str, int], given: int | None, old: Index | None, *, samples: bool
) -> int | None:
    """How many samples a block is to have; None where that follows from the size of the pictures."""
    if given is not None and not 1 <= given <= indexes.MAX_BLOCK_SAMPLES:
        raise ShardsError(
            f"--block-images {given} is outside [1, {indexes.MAX_BLOCK_SAMPLES}]; give one inside"
        )
    if given is None and old and (old.encoding == indexes.SAMPLES) == samples:
        return old.block_samples
    if given is None and samples:
        return usual_block_samples(url, *next(iter(lengths.items())))
    return given


def _scan_all(
    url: str, lengths: Mapping[str, int], looks: Looks, scan_one: Callable[[str, int], Scanned], *, dali: bool
) -> Generator[Scanned, None, None]:
    """Each tar as it is scanned, in order, its index for DALI written; all together are in `looks`."""

    def read(name: str) -> Scanned:
        return scan_one(name, lengths[name])

    with closing(in_order(read, lengths)) as results:
        for scanned in results:
            _join(looks, scanned.looks, store.join(url, scanned.shard.name))
            if dali:
                name = dali_index.index_name(scanned.shard.name)
                store.write_bytes(store.join(url, name), scanned.dali)
            yield replace(scanned, looks=Looks(), dali=b"")


def _tars(url: str, passed: Passed) -> dict[str, int]:
    """The length of each tar, by name."""
    found = find_tars(url, passed)
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
    if looks.shapes:
        check_shapes(looks.shapes, where)
    looks.strides |= more.strides
    looks.labels |= more.labels
    looks.passed_over.join(more.passed_over)


def _old_index(url: str, *, overwrite: bool) -> Index | None:
    """The index that is there, if any. Raises ShardsError where it cannot be read: what it says is lost."""
    where = store.join(url, indexes.INDEX_NAME)
    if not store.exists(where):
        return None
    try:
        return indexes.load(url, pictures=False)
    except StoreError:
        raise
    except ShardsError as error:
        if overwrite:
            return None
        raise ShardsError(
            f"{error}; a new index would lose {_told_by(store.read_bytes(where))}: put back a copy of "
            f"{indexes.INDEX_NAME}, or give --overwrite"
        ) from error


def _told_by(data: bytes) -> str:
    """What a damaged index says that the tars do not, as far as it can be read."""
    classes = re.search(rb'"classes": ?\[("[^\]]*)\]', data)
    removed = re.findall(rb'"removed": ?\[([0-9, ]*)', data)
    marks = sum(len(numbers.split(b",")) for numbers in removed if numbers.strip())
    names = len(re.findall(rb'"(?:[^"\\]|\\.)*"', classes[1])) if classes else "the"
    return f"{names} class names, {marks or 'any'} marks of de-duplication, and the source it names"


def _check_free(url: str, lengths: Mapping[str, int], *, has_index: bool, dali: bool) -> None:
    """Raise ShardsError where the index would replace files that are not ours."""
    found, foreign = store.sizes_if_any(url), []
    if BEGUN_NAME in found and not has_index:
        raise ShardsError(
            f"{url} holds a build that has begun and not ended; run that build again, or give --overwrite to "
            f"index what is there of it"
        )
    table = store.join(url, indexes.BLOCKS_NAME)
    if not has_index and indexes.BLOCKS_NAME in found and not is_table(store.read_bytes(table)):
        foreign.append(indexes.BLOCKS_NAME)
    for name in map(dali_index.index_name, lengths) if dali else ():
        if name in found and not dali_index.is_index(store.read_bytes(store.join(url, name))):
            foreign.append(name)
    if foreign:
        raise not_ours(url, foreign)


def _check_marks(url: str, old: Index, shards: Sequence[Shard]) -> None:
    """Raise ShardsError where tars that have changed or gone take marks of de-duplication with them."""
    kept = {shard.name for shard in shards if shard.removed}
    lost = [shard for shard in old.shards if shard.removed and shard.name not in kept]
    if lost:
        raise ShardsError(
            f"{store.join(url, lost[0].name)} is not the tar that {indexes.INDEX_NAME} knows (nor are "
            f"{len(lost) - 1} more): {sum(len(shard.removed) for shard in lost)} marks of de-duplication "
            f"would be lost; put the tars back, or give --overwrite and run shards dedup again"
        )


def _with_marks(shard: Shard, old: Index | None) -> Shard:
    """`shard`, with what the old index marked as removed where its bytes are still the same."""
    marked = (each for each in (old.shards if old else ()) if each.removed)
    same = (each for each in marked if (each.name, each.sha256) == (shard.name, shard.sha256))
    return next(same, shard)


def _classes(labels: set[int], old: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each label: the old one, or else its number."""
    return old + tuple(str(label) for label in range(len(old), max(labels, default=-1) + 1))
