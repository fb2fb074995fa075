"""CIFAR-10, 60,000 pictures of 32 x 32 in ten classes: the Python or the binary version, packed or unpacked.

The Python version is pickles; they are read as `symbols` and never unpickled. Kept out: downloading.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardsError
from shards.sources.downloads import check_download
from shards.sources.published.arrays import Arrays
from shards.sources.published.symbols import Call, read_symbols

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
BATCH_IMAGES = 10_000
PICTURE_BYTES = 3 * 32 * 32
MAX_BATCH_BYTES = 2**26

Batch = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Pixels (n, 3072), planes of red, green and blue, and labels (n,)."""


def open_cifar10(path: str, split: str, *, verified: bool = True) -> Arrays:
    """The pictures of `split` from an archive or a folder of batches. Raises ShardsError."""
    found = dict(_batches(Path(path), split, verified=verified))
    for name in BATCHES[split]:
        if name not in found:
            raise ShardsError(
                f"{path} has no {name}; give cifar-10-python.tar.gz, cifar-10-binary.tar.gz, or the folder "
                f"that one of them unpacks to"
            )
    pixels = np.concatenate([found[name][0] for name in BATCHES[split]])
    labels = np.concatenate([found[name][1] for name in BATCHES[split]])
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Arrays("cifar10", split, images, labels, CLASSES)


def _batches(path: Path, split: str, *, verified: bool) -> Iterator[tuple[str, Batch]]:
    if not path.exists():
        raise ShardsError(f"{path} is not there; give the archive of CIFAR-10, or its folder")
    files = _files_of_folder(path, split) if path.is_dir() else _files_of_archive(path, split, verified)
    for name, data in files:
        where = f"{path}: {name}"
        yield (
            name.removesuffix(".bin"),
            parse_binary(data, where) if name.endswith(".bin") else parse_python(data, where),
        )


def _files_of_folder(path: Path, split: str) -> Iterator[tuple[str, bytes]]:
    places = [path, path / "cifar-10-batches-py", path / "cifar-10-batches-bin"]
    for name in BATCHES[split]:
        files = (place / each for place in places for each in (name, f"{name}.bin"))
        file = next((file for file in files if file.is_file()), None)
        if file:
            if file.stat().st_size > MAX_BATCH_BYTES:
                raise ShardsError(f"{file} is over {MAX_BATCH_BYTES} bytes; it is no batch of CIFAR-10")
            yield file.name, file.read_bytes()


def _files_of_archive(path: Path, split: str, verified: bool) -> Iterator[tuple[str, bytes]]:
    check_download(str(path), verified=verified)
    wanted = {each for name in BATCHES[split] for each in (name, f"{name}.bin")}
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                file = tar.extractfile(member) if name in wanted and member.isfile() else None
                if file:
                    if member.size > MAX_BATCH_BYTES:
                        raise ShardsError(f"{path}: {name} declares {member.size} bytes; it is refused")
                    yield name, file.read()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, OSError, zlib.error) as error:
        raise ShardsError(f"{path} is cut short or no tar ({error}); download it again") from error


def parse_binary(data: bytes, where: str) -> Batch:
    """A `.bin` batch: records of one label and 3,072 pixels."""
    wanted = BATCH_IMAGES * (1 + PICTURE_BYTES)
    if len(data) != wanted:
        raise ShardsError(f"{where} has {len(data)} bytes, a batch has {wanted}; download it again")
    rows = np.frombuffer(data, np.uint8).reshape(BATCH_IMAGES, 1 + PICTURE_BYTES)
    return _checked(rows[:, 1:], rows[:, 0].astype(np.int64), where)


def parse_python(data: bytes, where: str) -> Batch:
    """A pickled batch: a dict with `data`, uint8 (10000, 3072), and `labels`, a list."""
    found = read_symbols(data, where=where)
    fields = {_text(name): value for name, value in found.items()} if isinstance(found, dict) else {}
    pixels, labels = _array(fields.get("data")), fields.get("labels")
    if pixels is None or not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ShardsError(f"{where} has no uint8 data or no labels; it is no batch of CIFAR-10")
    return _checked(pixels, np.array(labels, np.int64), where)


def _array(value: object) -> NDArray[np.uint8] | None:
    """The array that `value` spells as NumPy pickles it; None where it spells anything else."""
    state = value.state if isinstance(value, Call) and value.name.endswith(" _reconstruct") else None
    if not isinstance(state, tuple) or len(state) != 5:
        return None
    _, shape, kind, fortran, data = state
    plain = isinstance(kind, Call) and kind.arguments[:1] in ((b"u1",), ("u1",)) and fortran is False
    if not plain or shape != (BATCH_IMAGES, PICTURE_BYTES) or not isinstance(data, bytes):
        return None
    return np.frombuffer(data, np.uint8).reshape(shape) if len(data) == shape[0] * shape[1] else None


def _checked(pixels: NDArray[np.uint8], labels: NDArray[np.int64], where: str) -> Batch:
    if len(pixels) != len(labels) or labels.min(initial=0) < 0 or labels.max(initial=0) >= len(CLASSES):
        raise ShardsError(f"{where}: {len(pixels)} pictures with {len(labels)} labels, not all in [0, 9]")
    return pixels, labels.astype(np.uint8)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
