"""CelebA, aligned and cropped: 178 x 218 JPEGs in a zip or a folder, with attributes and partition.

The two lists lie beside the pictures, or in the folder itself. Kept out: decoding, except to cut a crop.
"""

import hashlib
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from shards.errors import ImageError, ShardsError
from shards.pictures.codec import Pixels, decode
from shards.printable import storable
from shards.sources.base import Item
from shards.sources.downloads import check_download
from shards.sources.own.folder import MAX_FILE_BYTES
from shards.tars.records import compact_json

CROPS = {"dcgan": (30, 40, 138), "pggan": (25, 57, 128), "full": None}
"""Left, top, side: of dcgan.torch; 128 pixels centred at (89, 121), of Karras et al. (2018); all of it."""

PARTITIONS = ("train", "valid", "test")
ATTRIBUTES_NAME = "list_attr_celeba.txt"
PARTITION_NAME = "list_eval_partition.txt"
MAX_LIST_BYTES = 2**28


class CelebA:
    """The pictures of `split`; `path` is img_align_celeba.zip or the folder it unpacks to."""

    classes: tuple[str, ...] = ()

    def __init__(self, path: str, split: str = "all", *, crop: str = "dcgan", verified: bool = True) -> None:
        self._path, self._split, self._crop = Path(path), split, crop
        self.downloads = (path,) if verified and self._path.is_file() else ()
        files = _listing(self._path)
        beside = [self._path] if self._path.is_dir() else []
        beside += [self._path.absolute().parent, self._path.absolute().parent.parent]
        partition = _read_partition(beside, verified=verified)
        self._header, attributes = _read_attributes(beside, verified=verified)
        wanted = PARTITIONS.index(split) if split in PARTITIONS else None
        self._items = [
            (name, files[name], part, attributes.get(name))
            for name, part in sorted(partition.items())
            if name in files and wanted in (None, part)
        ]
        if not self._items:
            raise ShardsError(f"{path}: none of its {len(files)} pictures is in {PARTITION_NAME} as {split}")
        longest = {"attributes": list(self._header), "name": storable(max(files)), "partition": "valid"}
        self.meta_bytes = len(compact_json(longest)) + 8

    @property
    def samples(self) -> int:
        """The number of pictures."""
        return len(self._items)

    def settings(self) -> dict[str, Any]:
        """Names, lengths, attributes and partition as one checksum."""
        listing = [(name, size, part, str(flags)) for name, (_, size), part, flags in self._items]
        sums = hashlib.sha256(compact_json(listing)).hexdigest()
        return {
            "source": "celeba",
            "split": self._split,
            "crop": self._crop,
            "images": self.samples,
            "listing_sha256": sums,
        }

    def item(self, position: int) -> Item:
        """The picture at `position`; its JSON has the partition and the attributes that it shows."""
        name, (member, size), part, flags = self._items[position]
        if size > MAX_FILE_BYTES:
            raise ImageError(f"{name} has over {MAX_FILE_BYTES} bytes", "too large")
        data = _read(self._path, member)
        meta: dict[str, Any] = {"partition": PARTITIONS[part]}
        if flags is not None:
            meta["attributes"] = [each for each, shown in zip(self._header, flags, strict=True) if shown]
        return Item(name, _cut(decode(data), self._crop) if CROPS[self._crop] else data, None, meta)


def _cut(pixels: Pixels, crop: str) -> Pixels:
    left, top, side = CROPS[crop] or (0, 0, 0)
    height, width = pixels.shape[:2]
    if height < top + side or width < left + side:
        raise ImageError(f"it is {width} x {height}, too small for the crop {crop}", "wrong size")
    return pixels[top : top + side, left : left + side]


def _listing(path: Path) -> dict[str, tuple[str, int]]:
    """Where each picture is, and its bytes, by file name."""
    if path.is_dir():
        places = sorted(path.rglob("*.jpg"))
        found = {place.name: (str(place.relative_to(path)), place.stat().st_size) for place in places}
    elif path.is_file():
        with _open_zip(path) as packed:
            names = [info for info in packed.infolist() if info.filename.endswith(".jpg")]
        found = {info.filename.rpartition("/")[2]: (info.filename, info.file_size) for info in names}
    else:
        raise ShardsError(f"{path} is not there; give img_align_celeba.zip or the folder of the pictures")
    if not found:
        raise ShardsError(f"{path} holds no .jpg files; give img_align_celeba.zip or its folder")
    return found


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ShardsError(f"{path} is cut short or no zip ({error}); download it again") from error


@lru_cache(maxsize=2)
def _shared_zip(path: Path) -> zipfile.ZipFile:
    """The archive, open as long as the process."""
    return _open_zip(path)


def _read(path: Path, member: str) -> bytes:
    """One picture. Raises ImageError where its bytes do not match the archive's checksum."""
    if path.is_dir():
        return (path / member).read_bytes()
    try:
        return _shared_zip(path).read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ImageError(f"{member} cannot be unpacked: {error}", "damaged") from error


def _find_list(places: list[Path], name: str, *, verified: bool) -> list[str]:
    path = next((place / name for place in places if (place / name).is_file()), None)
    if path is None:
        raise ShardsError(f"{places[0]} has no {name} in it or beside it; download it too")
    check_download(str(path), verified=verified)
    if path.stat().st_size > MAX_LIST_BYTES:
        raise ShardsError(f"{path} has over {MAX_LIST_BYTES} bytes; it is not CelebA's")
    return path.read_text(errors="replace").splitlines()


def _read_partition(places: list[Path], *, verified: bool) -> dict[str, int]:
    """0, 1 or 2 by file name."""
    found = {}
    for number, line in enumerate(_find_list(places, PARTITION_NAME, verified=verified), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise ShardsError(f"{PARTITION_NAME}, line {number}: {line[:60]!r} is no name with 0, 1 or 2")
        found[words[0]] = int(words[1])
    return found


def _read_attributes(
    places: list[Path], *, verified: bool
) -> tuple[tuple[str, ...], dict[str, tuple[bool, ...]]]:
    """The attributes' names, and by file name which of them are there."""
    lines = _find_list(places, ATTRIBUTES_NAME, verified=verified)
    header = tuple(lines[1].split()) if len(lines) > 1 else ()
    found = {}
    for number, line in enumerate(lines[2:], 3):
        name, *flags = line.split() or [""]
        if len(flags) != len(header) or set(flags) - {"1", "-1"}:
            raise ShardsError(
                f"{ATTRIBUTES_NAME}, line {number}: {line[:60]!r} is no name with {len(header)} times 1 or -1"
            )
        found[name] = tuple(flag == "1" for flag in flags)
    if not header or not lines[0].strip().isdigit() or int(lines[0]) != len(found):
        raise ShardsError(f"{ATTRIBUTES_NAME} tells of {lines[:1]} pictures and has {len(found)}; it is cut")
    return header, found
