"""One de-duplication: train the encoder, hash every picture, group, mark in the index, report.

Each stage's result is kept beside the dataset, so that a stopped run goes on; all of it is a function of the
shards' content and the settings. Kept out: the stages themselves.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shards.dataset import index as indexes
from shards.dataset.index import Index
from shards.dataset.reader import Blocks
from shards.dataset.sampling import SAMPLE_SALT, priorities
from shards.dedup import stage_cache
from shards.dedup.grouping import group, survivors
from shards.dedup.hashing import BITS, ROW_BYTES, Encoder, as_words, colours, hash_thumbs
from shards.dedup.removed import FOLDER, load_marks, without_marks, write_marks
from shards.dedup.report import report, write_page
from shards.dedup.settings import Settings
from shards.dedup.thumbnails import THUMB_BYTES, read_sample, read_shard
from shards.errors import ShardsError
from shards.storage import store
from shards.tars.records import compact_json

if TYPE_CHECKING:
    from shards.dedup.processes import Ranks

READ_THREADS = 16


@dataclass(frozen=True)
class Done:
    """What a de-duplication found."""

    images: int
    removed: int
    report: dict[str, Any]


def dedup(url: str, settings: Settings, *, on_shard: Callable[[int], object] | None = None) -> Done | None:
    """De-duplicate the dataset at `url`; what was found, or None on other ranks than the first.

    Raises ShardsError. `on_shard` hears of the samples of each shard that is hashed.
    """
    found = indexes.load(url)
    blocks = Blocks(url, without_marks(found, load_marks(url, found)))
    with _ranks(settings) as ranks:
        store.make_folder(store.join(url, FOLDER))
        encoder = _encoder(blocks, ranks, settings)
        _hash_shards(blocks, encoder, ranks, on_shard or (lambda samples: None))
        if ranks.rank:
            return None
        hashes = _all_hashes(url, blocks.index, encoder)
    return _mark(blocks, hashes, settings)


@contextmanager
def _ranks(settings: Settings) -> "Iterator[Ranks]":
    # Here and not at the top, because the rest of shards needs no torch.
    try:
        from shards.dedup.processes import join
    except ImportError as error:
        raise ShardsError(f"dedup needs torch ({error}): pip install -c constraints.txt -e .") from error
    with join() as ranks:
        yield ranks


def _encoder(blocks: Blocks, ranks: "Ranks", settings: Settings) -> Encoder | None:
    """The encoder that was kept, or a new one; None where the perceptual hash is asked for."""
    if settings.hash == "perceptual":
        return None
    url, index = blocks.url, blocks.index
    shards = sorted(shard.sha256 for shard in index.shards)
    key = stage_cache.key_of("encoder 1", settings.epochs, settings.train_images, index.block_samples, shards)
    data = stage_cache.load(url, "encoder", key)
    ranks.meet()  # before anyone writes, so that all decide alike
    if data is None:
        from shards.dedup.autoencoder import train_encoder

        thumbs = read_sample(blocks, images=settings.train_images)
        data = train_encoder(thumbs, ranks, epochs=settings.epochs).astype("<i8").tobytes()
        if not ranks.rank:
            stage_cache.save(url, "encoder", key, data)
    return np.frombuffer(data, "<i8").reshape(THUMB_BYTES + 1, BITS).astype(np.int64)


def _hash_shards(
    blocks: Blocks,
    encoder: Encoder | None,
    ranks: "Ranks",
    on_shard: Callable[[int], object],
) -> None:
    """Every rank its share of the shards; those that are hashed already are left."""
    base, url, index = _base_key(encoder), blocks.url, blocks.index
    for number in range(ranks.rank, len(index.shards), ranks.ranks):
        shard = index.shards[number]
        key = stage_cache.key_of(base, shard.sha256)
        if stage_cache.load(url, _hash_name(shard.name), key) is None:
            hashes = hash_thumbs(encoder, read_shard(blocks, number))
            stage_cache.save(url, _hash_name(shard.name), key, hashes.tobytes())
        on_shard(shard.samples)
    ranks.meet()


def _all_hashes(url: str, index: Index, encoder: Encoder | None) -> NDArray[np.uint8]:
    """The hashes of all samples, (n, 72), in the order of the index."""
    base = _base_key(encoder)

    def read(number: int) -> NDArray[np.uint8]:
        shard = index.shards[number]
        data = stage_cache.load(url, _hash_name(shard.name), stage_cache.key_of(base, shard.sha256))
        if data is None or len(data) != shard.samples * ROW_BYTES:
            raise ShardsError(f"{url}: the hashes of {shard.name} are gone or damaged; run it again")
        return np.frombuffer(data, np.uint8).reshape(-1, ROW_BYTES)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return np.concatenate(list(pool.map(read, range(len(index.shards)))))


def _mark(blocks: Blocks, hashes: NDArray[np.uint8], settings: Settings) -> Done:
    """Group, choose who stays, write marks, page and report."""
    url, index = blocks.url, blocks.index
    counts = [shard.samples for shard in index.shards]
    shards = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum([0, *counts])
    within = np.arange(len(shards)) - starts[shards]
    served = np.ones(len(shards), bool)
    for number, shard in enumerate(index.shards):
        served[starts[number] + np.array(shard.removed, np.int64)] = False
    places = np.flatnonzero(served)
    words = as_words(hashes[places], perceptual=settings.hash == "perceptual")
    shades = colours(hashes[places]) if settings.radius else None
    priority = priorities(index, shards[places], within[places])
    groups = group(*words, radius=settings.radius, colours=shades)
    keepers = places[survivors(groups, priority)]
    gone = keepers != places
    removed, survivor = places[gone], keepers[gone]
    marks = {
        index.shards[number].name: within[removed[shards[removed] == number]].tolist()
        for number in np.unique(shards[removed])
    }
    told = report(hashes[places], groups, settings)
    # Of the judged pairs: a hash's, so that they are a fair sample, and another one's than chose who goes,
    # in whose order those of large groups come early.
    order = np.argsort(priorities(index, shards[removed], within[removed], salt=SAMPLE_SALT))
    told["page"] = write_page(blocks, removed[order], survivor[order])
    store.write_bytes(store.join(url, FOLDER, "report.json"), compact_json(told) + b"\n")
    write_marks(url, marks)
    return Done(len(places), len(removed), told)


def _base_key(encoder: Encoder | None) -> bytes:
    return stage_cache.key_of("hashes 2", None if encoder is None else encoder.tobytes())


def _hash_name(shard: str) -> str:
    return f"{shard}.hashes"
