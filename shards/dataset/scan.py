"""One shard read from front to back for its index: its samples and blocks, their size and encoding.

Memory is a piece and a picture, however long the tar. Kept out: what the shards of a dataset share.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from shards.dataset.blocks import BLOCK_DTYPE, BLOCK_PIXEL_BYTES, BlockTable, default_block_samples
from shards.dataset.index import IMAGE_SIZES, Shard
from shards.dataset.passed_over import NO_SAMPLE, PACKED, SECOND_PICTURE, Passed
from shards.errors import ImageError, ShardsError
from shards.pictures.codec import check_stored, declared_size
from shards.storage import store
from shards.storage.pieces import Pieces
from shards.tars import dali
from shards.tars.annotations import MAX_CLASSES
from shards.tars.headers import TAR_BLOCK, Member, in_samples, walk
from shards.tars.records import PIXELS_OFFSET, Record, npy_header, picture_extensions

MAX_MEMBER_BYTES = 2**25
"""A larger picture, json or label is refused before it is read."""

MAX_BLOCK_BYTES = 2**32 - 1
"""What the block table can say."""

PACKED_NAMES = (".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".tar.zst", ".zip")

REDRAWN = ("turned", "colour profile")
"""Reasons to refuse a picture that a build makes right."""

UNPACK = "so cut it anew: python -m shards build webdataset"


@dataclass(slots=True)
class Looks:
    """What the pictures of a shard are, as far as they are read."""

    shapes: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """Encoding, height and width -> the first sample that has them."""
    strides: set[int] = field(default_factory=set)
    """Lengths of the records; 0 for one whose pixels are not where `.npy` records have them."""
    labels: set[int] = field(default_factory=set)
    passed_over: Passed = field(default_factory=Passed)


@dataclass(frozen=True, slots=True)
class Scanned:
    """A shard that was read; `dali` is its index for DALI, empty unless asked for."""

    shard: Shard
    blocks: BlockTable
    looks: Looks
    dali: bytes


@dataclass(slots=True)
class _Sample:
    """The members of one sample by extension, and the bytes of those that the index has to know of."""

    key: str
    start: int
    stop: int
    members: dict[str, Member] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)


def find_tars(url: str, passed: Passed) -> dict[str, int]:
    """The length of each tar in the folder `url`, by name; hidden ones are none, packed ones are told."""
    sizes = store.sizes(url)
    for name in sizes:
        if name.lower().endswith(PACKED_NAMES) and not name.startswith("."):
            passed.add(PACKED, name)
    return {name: size for name, size in sizes.items() if name.endswith(".tar") and not name.startswith(".")}


def scan(
    url: str, name: str, length: int, *, block_samples: int | None, for_dali: bool, pictures: bool = True
) -> Scanned:
    """Read the tar `name` of `length` bytes. Raises ShardsError where it can be no part of a dataset.

    Without `pictures` its samples may have any files, and `block_samples` is needed.
    """
    where = store.join(url, name)
    pieces, looks = Pieces(where, length), Looks()
    rows: list[tuple[int, int, int]] = []
    lines: list[str] = []
    samples = start = stop = 0
    for sample in _samples(where, pieces, length, looks.passed_over, pictures=pictures):
        size = _look(sample, looks, where) if pictures else 0
        if not pictures:
            looks.labels |= _labels(Record(sample.key, dict(sample.data)), where, strict=False)
        if for_dali:
            lines.append(dali.sample_line(sample.members.values(), where=where))
        samples, stop = samples + 1, sample.stop
        _check_block(stop - start, where)
        if samples % (block_samples or default_block_samples(size)) == 0:
            rows.append((start, stop - start, pieces.block_sum()))
            start = stop
    if not samples:
        raise ShardsError(f"{where} holds no samples; remove it, or build it again")
    if stop > start:
        rows.append((start, stop - start, pieces.block_sum()))
    shard = Shard(name, samples, length, pieces.sha256())
    return Scanned(shard, np.array(rows, BLOCK_DTYPE), looks, dali.pack(lines) if for_dali else b"")


def usual_block_samples(url: str, name: str, length: int) -> int:
    """How many of a tar's first samples, of any kind, take BLOCK_PIXEL_BYTES as they are stored."""
    where = store.join(url, name)
    pieces, count, stop = Pieces(where, length), 0, 0
    for sample in _samples(where, pieces, length, Passed(), pictures=False):
        count, stop = count + 1, sample.stop
        if stop >= BLOCK_PIXEL_BYTES:
            break
    return max(1, BLOCK_PIXEL_BYTES * count // max(stop, 1))


def check_shapes(shapes: Mapping[tuple[str, int, int], str], where: str) -> None:
    """Raise ShardsError where the pictures are not of one encoding and one square size that we serve."""
    low, high = IMAGE_SIZES
    (*_, (_, height, width)), (*_, key) = shapes, shapes.values()
    if len(shapes) > 1 or height != width:
        told = ", ".join(f"{encoding} {across} x {down}" for encoding, down, across in sorted(shapes))
        raise ShardsError(
            f"{where}: sample {key} makes it {told}; a dataset has one square size and encoding, {UNPACK}, "
            f"or take them as samples of any kind for your own loop: --samples"
        )
    if not low <= height <= high:
        raise ShardsError(
            f"{where}: sample {key} is {height} x {width}; we serve sides from {low} to {high}, {UNPACK}"
        )


def _samples(where: str, pieces: Pieces, length: int, passed: Passed, *, pictures: bool) -> Iterator[_Sample]:
    """Each sample as soon as it is whole: `pieces` is then released up to its stop, and no further."""
    sample: _Sample | None = None
    last = -1
    for number, member in in_samples(walk(pieces.read, length, where=where, whole=True), where=where):
        if number > last:
            if sample:
                yield sample
            start = sample.stop if sample else 0
            sample, last = _Sample(member.key, start, start), number
        if sample:
            sample.stop = member.stop
            _check_block(sample.stop - sample.start, where)
        if sample and member.key:
            _add(sample, member, pieces, where, pictures=pictures)
        elif not member.name.rpartition("/")[2].startswith("._") and not member.name.endswith("/"):
            passed.add(NO_SAMPLE, member.name)
        pieces.release(member.stop)
    if sample:
        yield sample


def _add(sample: _Sample, member: Member, pieces: Pieces, where: str, *, pictures: bool) -> None:
    sample.members[member.extension] = member
    wanted = (*(picture_extensions(sample.members)[:1] if pictures else ()), "json", "cls")
    if member.extension not in wanted:
        return
    if member.length > MAX_MEMBER_BYTES:
        if not pictures:
            return
        raise ShardsError(
            f"{where}: {member.name!r} has {member.length} bytes, more than {MAX_MEMBER_BYTES}; "
            f"write the tar without it"
        )
    kept = {name: data for name, data in sample.data.items() if name in wanted}
    sample.data = kept | {member.extension: pieces.read(member.body, member.body + member.length)}


def _look(sample: _Sample, looks: Looks, where: str) -> int:
    """Write down what the sample is; the side of its picture."""
    record = Record(sample.key, dict(sample.data))
    image = record.image()
    if image is None:
        raise ShardsError(
            f"{where}: sample {sample.key} has no image that we read (it has {', '.join(sample.members)}, "
            f"and members of a sample must lie side by side); write it anew: without it, or tar --sort=name"
        )
    for extension in picture_extensions(sample.members)[1:]:
        looks.passed_over.add(SECOND_PICTURE, sample.members[extension].name)
    try:
        height, width = declared_size(image[1])
        check_stored(bytes(image[1]), sums=False)
    except ImageError as error:
        way = UNPACK if error.reason in REDRAWN else "write the tar without it"
        raise ShardsError(f"{where}: sample {sample.key}: {error}; {way}") from error
    looks.shapes.setdefault((image[0], height, width), sample.key)
    check_shapes(looks.shapes, where)
    looks.strides.add(_stride(sample, height))
    looks.labels |= _labels(record, where, strict=True)
    return height


def _labels(record: Record, where: str, *, strict: bool) -> set[int]:
    try:
        label = record.meta().get("label")
    except ShardsError as error:
        if not strict:  # JSON of any kind, which need not be an object
            return set()
        raise ShardsError(f"{where}: {error}; write the tar without it") from error
    return {label} if type(label) is int and 0 <= label < MAX_CLASSES else set()


def _stride(sample: _Sample, size: int) -> int:
    """The length of the record, 0 where its pixels are not at PIXELS_OFFSET of it."""
    picture = sample.members.get("npy")
    plain = picture and picture.body == sample.start + TAR_BLOCK
    header = sample.data.get("npy", b"")[: PIXELS_OFFSET - TAR_BLOCK]
    return sample.stop - sample.start if plain and header == npy_header(size) else 0


def _check_block(length: int, where: str) -> None:
    if length > MAX_BLOCK_BYTES:
        raise ShardsError(f"{where}: a block of over 4 GiB; give fewer --block-images, or write the tar anew")
