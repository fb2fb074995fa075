"""Pictures of a source to a dataset at a URL, in parallel; byte for byte the same for any number of workers.

The index is written last: a build that was stopped leaves no dataset, and the same command starts it again.
Kept out: what a shard is made of, which is `cut`'s, and the command line.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any

import numpy as np
from tqdm import tqdm

from shards.building.cut import Cut, Failure, cut_shard, record_bytes, shard_name
from shards.building.failures import FAILURES_NAME, bad_allowed, check_failures, write_failures
from shards.building.progress import Stored, load_marks, save_mark, sweep
from shards.dataset import index as indexes
from shards.dataset.blocks import default_block_samples
from shards.dataset.index import Index, Shard
from shards.dataset.overwrite import begin, check_free
from shards.errors import ShardsError
from shards.machine import usable_cores
from shards.pictures.cv2_resize import WAYS, load_cv2
from shards.sources.base import Source
from shards.sources.downloads import check_downloads
from shards.storage import store
from shards.tars.records import ENCODINGS, compact_json

SHARD_IMAGES = 2048
SHARD_PIXEL_BYTES = 2**29
"""A worker holds a shard in memory, so the default cuts large pictures into smaller shards."""

QUALITY = 90


def plan_cut(
    *,
    size: int = 64,
    encoding: str = "npy",
    quality: int = QUALITY,
    shard_images: int | None = None,
    block_samples: int | None = None,
    resize: str = "area",
) -> Cut:
    """The cut that these settings ask for. Raises ShardsError for one that is out of range."""
    low, high = indexes.IMAGE_SIZES
    check_range("size", size, low, high)
    if encoding not in ENCODINGS:
        raise ShardsError(f"encoding={encoding!r} is not known; choose one of {', '.join(ENCODINGS)}")
    check_range("quality", quality, 1, 100)
    if shard_images is None:
        shard_images = max(1, min(SHARD_IMAGES, SHARD_PIXEL_BYTES // (size * size * 3)))
    if block_samples is None:
        block_samples = default_block_samples(size)
    check_range("shard_images", shard_images, 1, 10**6)
    check_range("block_images", block_samples, 1, 10**6)
    if resize not in WAYS:
        raise ShardsError(f"resize={resize!r} is not known; choose one of {', '.join(WAYS)}")
    if resize == "cv2_linear":
        load_cv2("resize=cv2_linear")
    lossy = quality if encoding in ("jpg", "webp") else None
    return Cut(size, encoding, lossy, shard_images, block_samples, resize)


def find_built(source: Source, out_url: str, cut: Cut) -> Index | None:
    """The index of this very build, if it is there. Raises ShardsError where others' files are."""
    if not store.exists(store.join(out_url, indexes.INDEX_NAME)):
        check_free(out_url)
        return None
    found = indexes.load(out_url)
    wanted = settings_of(source, cut)
    for name in sorted(found.source.keys() | wanted.keys(), key=lambda name: (name != "source", name)):
        old, new = found.source.get(name), wanted.get(name)
        if old != new:
            raise ShardsError(
                f"{out_url} already holds a dataset with {name}={_shown(old)}, not {_shown(new)}; "
                f"choose another folder, or --overwrite it"
            )
    return found


def take_built(source: Source, out_url: str, cut: Cut) -> Index | None:
    """As `find_built`; also removes the leftovers of a build that was killed while it cleaned up."""
    found = find_built(source, out_url, cut)
    if found:
        sweep(out_url)
    return found


def build(
    source: Source,
    out_url: str,
    *,
    size: int = 64,
    encoding: str = "npy",
    quality: int = QUALITY,
    shard_images: int | None = None,
    block_samples: int | None = None,
    resize: str = "area",
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
    max_bad: float | None = None,
    on_failures: Callable[[Sequence[Failure]], None] | None = None,
) -> Index:
    """Write the dataset and return its index; what is already built is not built again.

    Items that fail are left out, told to `on_failures`, and written to `failures.json`; more of them than
    `max_bad` takes, see `failures`, raise ShardsError, and a failure of storage raises StoreError. More than
    one of `workers` start processes by spawn, so a script that calls this needs `if __name__ == "__main__"`.
    """
    bad_allowed(1, max_bad)
    cut = plan_cut(
        size=size,
        encoding=encoding,
        quality=quality,
        shard_images=shard_images,
        block_samples=block_samples,
        resize=resize,
    )
    check_range("workers", 1 if workers is None else workers, 1, 4096)
    store.make_folder(out_url)
    if overwrite:
        store.remove(store.join(out_url, indexes.INDEX_NAME))
        sweep(out_url)
    elif found := take_built(source, out_url, cut):
        return found
    check_downloads(source, out_url)
    begin(out_url, settings_of(source, cut))
    shards = range(shards_of(source, cut))
    stored = store_shards(
        source, out_url, cut, shards=shards, workers=workers, progress=progress, max_bad=max_bad
    )
    return finish(source, out_url, cut, stored=stored, max_bad=max_bad, on_failures=on_failures)


def shards_of(source: Source, cut: Cut) -> int:
    """The number of shards that a source is cut into, empty ones too."""
    return -(-source.samples // cut.shard_images)


def store_shards(
    source: Source,
    out_url: str,
    cut: Cut,
    *,
    shards: range,
    workers: int | None,
    progress: bool,
    max_bad: float | None,
) -> list[Stored]:
    """Cut and store `shards`, in order, with a bar that counts images where stderr is a terminal.

    Those that a stopped build has done are not cut again. Raises ShardsError as soon as these shards alone
    have more bad pictures than the whole build takes.
    """
    work = partial(_store_shard, source, out_url, cut, settings_of(source, cut))
    done = load_marks(out_url, shards, settings_of(source, cut), cut)
    left = [shard for shard in shards if shard not in done]
    stored: list[Stored] = []
    failures: list[Failure] = []
    hidden = not (progress and sys.stderr.isatty())
    # A job of a cluster may have fewer CPUs than its machine.
    workers = workers or usable_cores()
    images = min(source.samples, shards.stop * cut.shard_images) - shards.start * cut.shard_images
    with (
        closing(_results(work, left, min(workers, len(left)), out_url)) as results,
        tqdm(total=images, unit=" images", disable=hidden, smoothing=0.1) as bar,
    ):
        for shard in shards:
            stored.append(done[shard] if shard in done else next(results))
            bar.update(stored[-1].items)
            failures += stored[-1].failures
            check_failures(failures, out_url, samples=source.samples, max_bad=max_bad)
    return stored


def finish(
    source: Source,
    out_url: str,
    cut: Cut,
    *,
    stored: list[Stored],
    max_bad: float | None = None,
    on_failures: Callable[[Sequence[Failure]], None] | None = None,
) -> Index:
    """Write down what failed, then the index of all shards. Raises ShardsError where too many did."""
    failures = [failure for result in stored for failure in result.failures]
    check_failures(failures, out_url, samples=source.samples, max_bad=max_bad)
    write_failures(out_url, failures)
    if failures and on_failures:
        on_failures(failures)
    index = _write_index(source, out_url, cut, stored)
    sweep(out_url)
    return index


def _results(
    work: Callable[[int], Stored], shards: Sequence[int], workers: int, out_url: str
) -> Generator[Stored, None, None]:
    """`work` done for each shard, in order; spawned, because fsspec's threads do not survive a fork."""
    if workers <= 1 or out_url.startswith("memory:"):  # memory is each process's own
        yield from map(work, shards)
        return
    # Ctrl-C reaches the whole process group; the workers leave the answer to this process.
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(work,),
    )
    try:
        yield from pool.map(_do, shards)
    except BrokenProcessPool as error:
        raise ShardsError(
            f"one of {workers} workers was killed, perhaps for lack of memory; try fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_WORK: list[Callable[[int], Stored]] = []
"""What this worker process does; handed over once, because a source of millions of keys is large."""


def _start_worker(work: Callable[[int], Stored]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _WORK[:] = [work]


def _leave_with_parent() -> None:
    """A killed parent takes its workers along, which would wait for it for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(shard: int) -> Stored:
    return _WORK[0](shard)


def _store_shard(source: Source, out_url: str, cut: Cut, settings: dict[str, Any], shard: int) -> Stored:
    """Cut one shard, store it, and leave the mark that it is done."""
    made = cut_shard(source, cut, shard=shard)
    entry = None
    if made.samples:
        store.write_bytes(store.join(out_url, shard_name(shard)), made.data)
        entry = Shard(shard_name(shard), made.samples, len(made.data), made.sha256)
    result = Stored(entry, made.blocks, made.samples + len(made.failures), made.failures)
    save_mark(out_url, shard, settings, result)
    return result


def _write_index(source: Source, out_url: str, cut: Cut, stored: list[Stored]) -> Index:
    shards = tuple(result.shard for result in stored if result.shard)
    if not shards:
        sweep(out_url)
        begin(out_url, settings_of(source, cut))  # the list of failures is ours
        raise ShardsError(
            f"none of the {source.samples} pictures is usable; see {FAILURES_NAME} in {out_url}"
        )
    names = {shard.name for shard in shards}
    for name in store.sizes(out_url):
        if re.fullmatch(r"shard-\d{6}\.(tar|idx)", name) and name not in names:
            store.remove(store.join(out_url, name))  # of a build that was stopped or overwritten
    index = Index(
        version=indexes.VERSION,
        encoding=cut.encoding,
        image_size=cut.size,
        block_samples=cut.block_samples,
        record_bytes=record_bytes(cut.size, source.meta_bytes)
        if cut.encoding == "npy" and source.meta_bytes
        else 0,
        classes=source.classes,
        shards=shards,
        blocks_sha256="",
        source=settings_of(source, cut),
    )
    return indexes.save(out_url, index, np.concatenate([result.blocks for result in stored]))


def settings_of(source: Source, cut: Cut) -> dict[str, Any]:
    """What tells this build from another, as the index has it."""
    return source.settings() | cut.settings()


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raises ShardsError for a number outside `[low, high]`."""
    if not low <= value <= high:
        raise ShardsError(f"{name}={value} is outside [{low}, {high}]; give one inside")


def _shown(value: object) -> str:
    return compact_json(value).decode()
