"""Foreign webdataset tars, to be cut anew: any picture sizes and encodings, labels from `.cls` or `.json`.

Neighbouring files that agree up to the first dot are one sample; its first picture counts, and `x.seg.png`
only where it is the only one. Kept out: tars
that may stay as they are, which `python -m shards index` adopts.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from shards import store
from shards.errors import ImageError, ShardsError
from shards.format import meta_json
from shards.images import MAX_PIXELS
from shards.sources import Item
from shards.sources.folder import EXTENSIONS, MAX_FILE_BYTES
from shards.sources.members import Member, Reader, Texts, file_size, scan_tar

PICTURES = {extension[1:] for extension in EXTENSIONS} | {"npy"}
MAX_META_BYTES = 2**16
MAX_CLASSES = 10**6


class Sample(NamedTuple):
    """What the scan found out about one sample; `tar` counts the tars."""

    key: str
    tar: int
    picture: Member
    meta: Member | None
    label: int | None


class Webdataset:
    """The samples of one tar, or of all tars of a folder, at any URL."""

    def __init__(self, url: str) -> None:
        self._tars, self._reader = _find_tars(url), Reader()
        found = [
            sample for number, (tar, size) in enumerate(self._tars) for sample in _scan(tar, size, number)
        ]
        if not found:
            raise ShardsError(f"{url}: its {len(self._tars)} tars hold no pictures")
        self._keys = Texts(sample.key for sample in found)
        self._suffixes = Texts(_extension(sample.picture.name) for sample in found)
        nothing = Member("", 0, 0)
        self._rows = np.array(
            [(each.tar, *each.picture[1:], *(each.meta or nothing)[1:]) for each in found], np.int64
        )
        self._labels = np.array([-1 if each.label is None else each.label for each in found], np.int32)
        self.classes = tuple(map(str, range(int(self._labels.max()) + 1)))
        json_bytes = int((self._rows[:, 4] - self._rows[:, 3]).max())
        longest = max(len(meta_json({"label": MAX_CLASSES, "name": sample.key})) for sample in found)
        self.meta_bytes = longest + min(json_bytes, MAX_META_BYTES)

    @property
    def samples(self) -> int:
        """The number of samples that have a picture."""
        return len(self._keys)

    def settings(self) -> dict[str, Any]:
        """Where each sample lies in its tar, and its label, as one checksum."""
        sums = hashlib.sha256(self._rows.tobytes() + self._labels.tobytes()).hexdigest()
        return {"source": "webdataset", "images": self.samples, "listing_sha256": sums}

    def item(self, position: int) -> Item:
        """The sample at `position`, with what its JSON says. Raises ImageError."""
        key, label = self._keys[position], int(self._labels[position])
        tar, start, stop, meta_start, meta_stop = map(int, self._rows[position])
        url, size = self._tars[tar]
        if stop - start > MAX_FILE_BYTES:
            raise ImageError(f"{key} has over {MAX_FILE_BYTES} bytes", "too large")
        data = self._reader.read(url, start, stop, size=size)
        image = _array(data) if self._suffixes[position] == "npy" else data
        meta = _parse_json(self._reader.read(url, meta_start, meta_stop, size=size), key)
        if len(meta_json(meta | {"label": MAX_CLASSES, "name": key})) > self.meta_bytes:
            raise ImageError(f"{key}: its JSON is longer written anew than it was", "long JSON")
        return Item(key, image, None if label < 0 else label, meta)


def _find_tars(url: str) -> list[tuple[str, int]]:
    if url.endswith(".tar"):
        return [(url, file_size(url))]
    found = [(store.join(url, name), size) for name, size in store.sizes(url).items()]
    tars = [(name, size) for name, size in found if name.endswith(".tar")]
    if not tars:
        raise ShardsError(f"{url} holds no .tar files (packed ones are not read); give their folder or URL")
    return tars


def _scan(url: str, size: int, number: int) -> Iterator[Sample]:
    """The samples of one tar that have a picture."""
    for key, members in _groups(url, size):
        plain = [each for name, each in members.items() if name.lower() in PICTURES]
        pictures = plain or [each for name, each in members.items() if _extension(name) in PICTURES]
        if not pictures:
            continue
        meta = members.get("json")
        label = _label(url, members.get("cls"), meta)
        yield Sample(key, number, pictures[0], meta, label)


def _groups(url: str, size: int) -> Iterator[tuple[str, dict[str, Member]]]:
    """Key, and its files by extension: `a/b.seg.png` has the key `a/b` and the extension `seg.png`."""
    last, members = "", dict[str, Member]()
    for member in scan_tar(url, 0, size):
        folder, _, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        if not stem:
            continue  # hidden files, such as macOS leaves in tars
        key = f"{folder}/{stem}" if folder else stem
        if key != last:
            if members:
                yield last, members
            last, members = key, {}
        members.setdefault(extension, member)
    if members:
        yield last, members


def _label(url: str, cls: Member | None, meta: Member | None) -> int | None:
    """The label that the JSON's `label` or else `.cls` gives; none where neither is a small whole number."""
    value: object = None
    if meta is not None:
        try:
            value = _parse_json(_bounded(url, meta), "").get("label")
        except ImageError:
            value = None  # counted when the sample is read
    if type(value) is not int and cls is not None and cls.stop - cls.start <= 20:
        text = store.read_range(url, cls.start, cls.stop).strip()
        value = int(text) if text.isdigit() else None
    return value if type(value) is int and 0 <= value < MAX_CLASSES else None


def _bounded(url: str, member: Member) -> bytes:
    return store.read_range(url, member.start, min(member.stop, member.start + MAX_META_BYTES))


def _parse_json(data: bytes, key: str) -> dict[str, Any]:
    """The JSON object of a sample; empty without one."""
    if not data:
        return {}
    try:
        found = json.loads(data[: MAX_META_BYTES + 1])
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{key}: its JSON cannot be read: {error}", "bad JSON") from error
    if not isinstance(found, dict):
        raise ImageError(f"{key}: its JSON is no object", "bad JSON")
    return found


def _array(data: bytes) -> NDArray[np.uint8]:
    """The picture in a `.npy` file, grey or RGB."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(stream)
    except (ValueError, EOFError) as error:
        raise ImageError(f"no .npy file: {' '.join(str(error).split())[:80]}") from error
    grey = len(shape) == 2 or shape[2:] == (1,)
    whole = len(data) - stream.tell() == int(np.prod([float(size) for size in shape]))
    if kind != np.uint8 or fortran or not whole or not (grey or shape[2:] == (3,)) or 0 in shape:
        raise ImageError(f"the .npy holds {kind} of shape {shape}, not uint8 (h, w, 3)", "unsupported pixels")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise ImageError(f"the .npy declares {shape}", "too large")
    pixels = np.frombuffer(data, np.uint8, offset=stream.tell()).reshape(*shape[:2], -1)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*shape[:2], 3)))


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()
