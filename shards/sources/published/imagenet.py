"""ILSVRC 2012 as published: a tar of 1,000 tars, or the flat validation tar and the development kit.

Pictures are read by byte range out of the tar at any URL; nothing is unpacked. Kept out: decoding, which
finds the CMYK pictures and the PNG among the JPEGs by their bytes.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import ImageError, ShardsError
from shards.sources.base import Item
from shards.sources.downloads import check_download
from shards.sources.own.folder import MAX_FILE_BYTES
from shards.sources.published.matlab import read_matlab
from shards.tars.members import Reader, Texts, file_size, scan_tar

CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar")
VALIDATION_NAME = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG")
DEVKIT_FILES = ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
MAX_DEVKIT_BYTES = 2**26


class ImageNet:
    """The pictures of one tar; a label is the class's place among the sorted WordNet ids."""

    meta_bytes = 96

    def __init__(
        self, url: str, split: str = "train", *, devkit: str | None = None, verified: bool = True
    ) -> None:
        self._url, self._split, self._reader = url, split, Reader()
        if split == "val" and not devkit:
            raise ShardsError("the validation pictures have no labels of their own; give --devkit too")
        self._size = file_size(url)
        self.downloads = (url,) if verified else ()
        if split == "train":
            found, self.classes = _scan_classes(url, self._size)
        else:
            found, self.classes = _scan_flat(url, self._size, *_read_devkit(devkit or "", verified=verified))
        self._names = Texts(name for name, _, _, _ in found)
        self._labels = np.array([label for _, label, _, _ in found], np.int32)
        self._spans = np.array([(start, stop) for _, _, start, stop in found], np.int64).reshape(-1, 2)

    @property
    def samples(self) -> int:
        """The number of pictures."""
        return len(self._labels)

    def settings(self) -> dict[str, Any]:
        """Where each picture lies in the tar, and its label, as one checksum."""
        sums = hashlib.sha256(self._spans.tobytes() + self._labels.tobytes()).hexdigest()
        return {"source": "imagenet", "split": self._split, "images": self.samples, "listing_sha256": sums}

    def item(self, position: int) -> Item:
        """The picture at `position`. Raises ImageError where it is of another class than its tar."""
        name, label = self._names[position], int(self._labels[position])
        start, stop = map(int, self._spans[position])
        if self._split == "train" and not name.startswith(f"{self.classes[label]}_"):
            raise ImageError(f"{name} lies in the tar of {self.classes[label]}", "mislabelled")
        if stop - start > MAX_FILE_BYTES:
            raise ImageError(f"{name} has over {MAX_FILE_BYTES} bytes", "too large")
        return Item(name, self._reader.read(self._url, start, stop, size=self._size), label)


Found = list[tuple[str, int, int, int]]
"""Name, label, first byte, end."""


def _scan_classes(url: str, size: int) -> tuple[Found, tuple[str, ...]]:
    """What lies in the tar of tars, in its order."""
    tars = []
    for member in scan_tar(url, 0, size):
        if not (match := CLASS_TAR.fullmatch(member.name)):
            raise ShardsError(
                f"{url} holds {member.name}, not tars of classes; give ILSVRC2012_img_train.tar"
            )
        tars.append((match[1], member))
    classes = tuple(sorted({name for name, _ in tars}))
    if not tars or len(classes) != len(tars):
        raise ShardsError(f"{url} holds {len(tars)} tars of {len(classes)} classes; it is not ImageNet's")
    labels = {name: label for label, name in enumerate(classes)}
    found = []
    for name, tar in tars:
        for each in scan_tar(url, tar.start, tar.stop):
            found.append((each.name.rpartition("/")[2], labels[name], each.start, each.stop))
    return found, classes


def _scan_flat(
    url: str, size: int, classes: tuple[str, ...], truth: list[int]
) -> tuple[Found, tuple[str, ...]]:
    """The validation pictures in the order of their numbers, which is that of `truth`."""
    found = {}
    for member in scan_tar(url, 0, size):
        if not (match := VALIDATION_NAME.fullmatch(member.name)):
            raise ShardsError(f"{url} holds {member.name}; give ILSVRC2012_img_val.tar")
        found[int(match[1])] = member
    if set(found) != set(range(1, len(truth) + 1)):
        raise ShardsError(f"{url} holds {len(found)} pictures, the development kit tells of {len(truth)}")
    rows = ((found[number], truth[number - 1]) for number in sorted(found))
    return [
        (member.name.rpartition("/")[2], label, member.start, member.stop) for member, label in rows
    ], classes


def _read_devkit(path: str, *, verified: bool) -> tuple[tuple[str, ...], list[int]]:
    """The sorted WordNet ids, and the label of each validation picture."""
    files = _devkit_files(Path(path), verified=verified)
    meta = f"{path}: {DEVKIT_FILES[0]}"
    synsets = read_matlab(meta, {"synsets": (None, 1)}, file=io.BytesIO(files[DEVKIT_FILES[0]]))["synsets"]
    try:
        leaves = [row for row in synsets[:, 0] if int(np.squeeze(row["num_children"])) == 0]
        wnids = {int(np.squeeze(row["ILSVRC2012_ID"])): str(np.squeeze(row["WNID"])) for row in leaves}
        classes = tuple(sorted(wnids.values()))
        labels = {number: classes.index(wnid) for number, wnid in wnids.items()}
        truth = [labels[int(line)] for line in files[DEVKIT_FILES[1]].split()]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ShardsError(f"{path} is not the development kit of ILSVRC 2012 ({error!r})") from error
    return classes, truth


def _devkit_files(path: Path, *, verified: bool) -> dict[str, bytes]:
    found = {}
    try:
        if path.is_dir():
            places = [path / name for name in DEVKIT_FILES] + [path / "data" / name for name in DEVKIT_FILES]
            found = {place.name: place.read_bytes() for place in places if place.is_file()}
        else:
            check_download(str(path), verified=verified)
            with tarfile.open(path, "r|*") as tar:
                found = {
                    name: _member_bytes(tar.extractfile, member)
                    for member in tar
                    if (name := member.name.rpartition("/")[2]) in DEVKIT_FILES
                }
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardsError(f"{path} cannot be read ({error}); give ILSVRC2012_devkit_t12.tar.gz") from error
    for name in DEVKIT_FILES:
        if name not in found:
            raise ShardsError(f"{path} has no {name}; give ILSVRC2012_devkit_t12.tar.gz or its folder")
    return found


def _member_bytes(extract: Callable[[tarfile.TarInfo], Any], member: tarfile.TarInfo) -> bytes:
    if not member.isfile() or member.size > MAX_DEVKIT_BYTES:
        raise tarfile.ReadError(f"{member.name} is no file, or too large")
    data: bytes = extract(member).read()
    return data
