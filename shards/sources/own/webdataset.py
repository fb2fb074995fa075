"""Foreign webdataset tars, to be cut anew: any picture sizes and encodings, labels from `.cls` or `.json`.

What a sample, its picture and its label are is as `python -m shards index` has it, see `tar`, `format` and
`meta`. Kept out: tars that may stay as they are, which that command adopts.
"""

import hashlib
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from shards.dataset.passed_over import NO_SAMPLE, ODD_NUMBER, SECOND_PICTURE, Passed
from shards.dataset.scan import MAX_MEMBER_BYTES, PACKED_NAMES, find_tars
from shards.errors import NPY_ERRORS, ImageError, ShardsError
from shards.pictures.codec import MAX_PIXELS
from shards.sources.base import Item
from shards.sources.own.folder import EXTENSIONS, MAX_FILE_BYTES
from shards.storage import store
from shards.tars.annotations import label_of, parse_meta
from shards.tars.headers import WRITE_FILES, Member, samples_of, walk
from shards.tars.members import Reader, Texts, file_size
from shards.tars.records import meta_json, picture_extensions

PICTURES = {extension[1:] for extension in EXTENSIONS} | {"npy"}
MAX_META_BYTES = 2**16
"""Longer JSON is not what all records are filled up to; they are then of any length."""


class Sample(NamedTuple):
    """What the scan found out about one sample; `tar` counts the tars.

    `problem` is why it cannot be used: a reason in a few words, and what to say; both empty where it can.
    """

    key: str
    tar: int
    extension: str
    picture: tuple[int, int]
    meta: tuple[int, int]
    label: int | None
    meta_bytes: int
    problem: tuple[str, str]


class Webdataset:
    """The samples of one tar, or of all tars of a folder, at any URL.

    Those that have no picture, or one behind a link, are counted by the build; what is left beside the
    pictures is in `passed_over`.
    """

    def __init__(self, url: str) -> None:
        self._reader, self.passed_over = Reader(), Passed()
        self._tars = _find_tars(url, self.passed_over)
        found = [sample for number in range(len(self._tars)) for sample in self._scan(number)]
        usable = [sample for sample in found if not sample.problem[0]]
        if not usable:
            told = f": {found[0].problem[1]}" if found else ""
            raise ShardsError(f"{url}: its {len(self._tars)} tars hold no pictures that can be used{told}")
        self._keys = Texts(sample.key for sample in found)
        self._extensions = Texts(sample.extension for sample in found)
        self._rows = np.array([(each.tar, *each.picture, *each.meta) for each in found], np.int64)
        self._labels = np.array([-1 if each.label is None else each.label for each in found], np.int32)
        self._problems = {number: each.problem for number, each in enumerate(found) if each.problem[0]}
        self.classes = tuple(map(str, range(int(self._labels.max()) + 1)))
        longest = max(each.meta_bytes for each in usable)
        self.meta_bytes = longest if longest <= MAX_META_BYTES else 0

    @property
    def samples(self) -> int:
        """The number of samples, those without a picture too."""
        return len(self._keys)

    def settings(self) -> dict[str, Any]:
        """Where each sample lies in its tar, and its label, as one checksum."""
        sums = hashlib.sha256(self._rows.tobytes() + self._labels.tobytes()).hexdigest()
        return {"source": "webdataset", "images": self.samples, "listing_sha256": sums}

    def item(self, position: int) -> Item:
        """The sample at `position`, with what its JSON says. Raises ImageError."""
        if position in self._problems:
            reason, told = self._problems[position]
            raise ImageError(told, reason)
        key, label = self._keys[position], int(self._labels[position])
        tar, start, stop, meta_start, meta_stop = map(int, self._rows[position])
        url, size = self._tars[tar]
        data = self._reader.read(url, start, stop, size=size)
        image = _array(data) if self._extensions[position] == "npy" else data
        meta = parse_meta(self._reader.read(url, meta_start, meta_stop, size=size), key)
        return Item(key, image, None if label < 0 else label, meta)

    def _scan(self, number: int) -> Iterator[Sample]:
        """The samples of one tar. Raises ShardsError where the files of one lie apart."""
        url, size = self._tars[number]

        def read(start: int, stop: int) -> bytes:
            return self._reader.read(url, start, stop, size=size)

        pictured, bare = set[str](), set[str]()
        for group in samples_of(walk(read, size, where=url, whole=True, links=True), where=url):
            members = {member.extension: member for member in group if self._is_of_sample(member)}
            if not members:
                continue
            sample = self._look(number, members)
            (pictured if sample.extension else bare).add(sample.key)
            yield sample
        if apart := sorted(pictured & bare):
            raise ShardsError(
                f"{url}: the files of sample {apart[0]} do not lie side by side (nor do those of "
                f"{len(apart) - 1} more); write the tar anew: tar --sort=name"
            )

    def _is_of_sample(self, member: Member) -> bool:
        base = member.name.rpartition("/")[2]
        if not member.key and base and not base.startswith("._"):
            self.passed_over.add(NO_SAMPLE, member.name)
        return bool(member.key)

    def _look(self, number: int, members: dict[str, Member]) -> Sample:
        url, size = self._tars[number]
        key = next(iter(members.values())).key
        first, *others = picture_extensions(members, PICTURES) or ("",)
        for other in others:
            self.passed_over.add(SECOND_PICTURE, members[other].name)
        sample = Sample(key, number, first, (0, 0), (0, 0), None, 0, _problem(key, first, members))
        if sample.problem[0]:
            return sample
        said = {
            name: self._reader.read(url, each.body, each.body + each.length, size=size)
            for name, each in members.items()
            if name in ("json", "cls")
        }
        picture, meta = members[first], members.get("json", Member("", "", "", 0, 0))
        try:
            found = parse_meta(
                said.get("json", b""), key, on_odd_number=lambda _: self.passed_over.add(ODD_NUMBER, key)
            )
        except ShardsError as error:
            return sample._replace(problem=("bad JSON", str(error)))
        label = label_of(found, said.get("cls"))
        return sample._replace(
            picture=(picture.body, picture.body + picture.length),
            meta=(meta.body, meta.body + meta.length),
            label=label,
            meta_bytes=len(meta_json({"name": key} | found | ({} if label is None else {"label": label}))),
        )


def _problem(key: str, picture: str, members: dict[str, Member]) -> tuple[str, str]:
    """Why a sample cannot be used, as far as the lengths of its files tell."""
    if not picture:
        return "no picture", f"sample {key} has no picture (it has {', '.join(members)})"
    for name in (picture, "json", "cls"):
        member = members.get(name)
        if member and member.link:
            return "link", f"sample {key}: {member.name} is a link, not a file; {WRITE_FILES}"
        most = MAX_FILE_BYTES if name == picture else MAX_MEMBER_BYTES
        if member and member.length > most:
            return "too large", f"sample {key}: {member.name} has {member.length} bytes, more than {most}"
    return "", ""


def _find_tars(url: str, passed: Passed) -> list[tuple[str, int]]:
    """URL and bytes of each tar."""
    name = url.rpartition("/")[2].lower()
    if name.endswith(PACKED_NAMES):
        raise ShardsError(f"{url}: packed tars are not read; unpack it first (gunzip, unxz, unzstd ...)")
    if name.endswith(".tar"):
        return [(url, file_size(url))]
    tars = [(store.join(url, name), size) for name, size in find_tars(url, passed).items()]
    if not tars:
        raise ShardsError(
            f"{url} holds no .tar files (packed ones are not read, so unpack them); give their folder or URL"
        )
    return tars


def _array(data: bytes) -> NDArray[np.uint8]:
    """The picture in a `.npy` file, grey or RGB."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(stream)
    except NPY_ERRORS as error:
        raise ImageError(f"no .npy file: {' '.join(str(error).split())[:80]}") from error
    if max(shape, default=0) > MAX_PIXELS:
        raise ImageError("the .npy declares more pixels than are read", "too large")
    grey = len(shape) == 2 or shape[2:] == (1,)
    whole = len(data) - stream.tell() == int(np.prod([float(size) for size in shape]))
    if kind != np.uint8 or fortran or not whole or not (grey or shape[2:] == (3,)) or min(shape) < 1:
        raise ImageError(f"the .npy holds {kind} of shape {shape}, not uint8 (h, w, 3)", "unsupported pixels")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise ImageError(f"the .npy declares {shape}", "too large")
    pixels = np.frombuffer(data, np.uint8, offset=stream.tell()).reshape(*shape[:2], -1)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*shape[:2], 3)))
