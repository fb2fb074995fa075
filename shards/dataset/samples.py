"""The samples of a dataset by number, with all their files: of pictures as the trainer reads them, or of
any kind (`shards index --samples`).

Kept out: an order, and reading ahead, which are `dcgan_dist.data`'s.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.errors import ShardsError
from shards.pictures.codec import Pixels, decode_member
from shards.storage.in_order import in_order
from shards.tars.annotations import label_of, parse_meta
from shards.tars.records import Buffer, picture_extension


class Sample(dict[str, Any]):
    """The files of one sample: bytes by extension in lower case, `"__key__"` and `"__url__"` as webdataset
    names them. What is decoded is decoded when it is asked for.
    """

    @property
    def key(self) -> str:
        """The name of its files in their tar, up to the first dot."""
        return str(self["__key__"])

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The object in its `.json`, with the label of its `.cls` where the json has none; `{}` without.

        Raises ShardsError where the json is none.
        """
        found = parse_meta(self.get("json", b""), self.key)
        label = label_of(found, self.get("cls"))
        return found if label is None else found | {"label": label}

    @property
    def label(self) -> int | None:
        """The whole number `label` of its `.json`, or in its `.cls`; None without one."""
        return label_in(self.items())

    @property
    def picture(self) -> Pixels:
        """Its first picture, upright and sRGB: uint8 (h, w, 3). Raises ShardsError without a whole one."""
        extension = picture_extension(name for name in self if not name.startswith("__"))
        if extension is None:
            raise ShardsError(f"{self['__url__']}: sample {self.key} has no picture")
        return decode_member(self[extension])


class Samples:
    """The kept samples of the dataset at `url`, in storage order; any threads and processes may read them.

    It is what torch's DataLoader takes for a map-style dataset and grain for a random-access source.
    Raises ShardsError where there is no dataset, and where its bytes are not those that were indexed.
    """

    def __init__(self, url: str) -> None:
        self.url, self.index = url, load(url, pictures=False)
        self.blocks = Blocks(url, self.index)
        self._stops = np.cumsum(self.blocks.kept_counts)
        self._last: tuple[int, list[Sample]] = (-1, [])

    def __len__(self) -> int:
        return self.index.kept

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | list[Sample]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        number = at + len(self) if at < 0 else at
        if not 0 <= number < len(self):
            raise IndexError(f"sample {at} of {len(self)} of {self.url}")
        block = int(np.searchsorted(self._stops, number, side="right"))
        return self.of_block(block)[number - int(self._stops[block])]

    def __iter__(self) -> Iterator[Sample]:
        for block in range(len(self.blocks)):
            yield from self.of_block(block)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": (-1, [])}

    def of_block(self, block: int) -> list[Sample]:
        """The kept samples of one block, the unit of reading; the last one asked for is kept in memory."""
        last = self._last
        if last[0] != block:
            last = self._last = block, samples_in(self.blocks, block, self.blocks.read(block))
        return last[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels, by number; empty where no sample has a label."""
        return self.index.classes

    def labels(self) -> NDArray[np.int64]:
        """(n,): each sample's label, -1 where it has none. Reads the whole dataset, blocks side by side."""

        def of(block: int) -> list[int]:
            found = samples_in(self.blocks, block, self.blocks.read(block))
            return [-1 if (label := sample.label) is None else label for sample in found]

        return np.array(
            [label for block in in_order(of, range(len(self.blocks))) for label in block], np.int64
        )


def label_in(files: Iterable[tuple[str, Buffer]]) -> int | None:
    """The label that a sample's files tell; the json is parsed only where it may have one."""
    data = cls = b""
    for extension, found in files:
        if extension == "json":
            data = bytes(found)
        elif extension == "cls":
            cls = bytes(found)
    ascii_object = data[:1] == b"{" and b"\0" not in data[:2]
    if not data or (ascii_object and b'"label"' not in data and b"\\" not in data):
        return label_of({}, cls) if cls else None
    try:
        return label_of(parse_meta(data, ""), cls)
    except ShardsError:  # JSON of another kind than an object
        return label_of({}, cls)


def samples_in(blocks: Blocks, block: int, data: Buffer) -> list[Sample]:
    """The kept samples of a block in its bytes. Raises ShardsError where they are not those of the index."""
    url, files = blocks.shard_url(blocks.place(block).shard), blocks.files(block, data)
    return [sample_of(files.keys[at], files.of(at), url) for at in blocks.kept(block).tolist()]


def sample_of(key: str, files: Iterable[tuple[str, Buffer]], url: str) -> Sample:
    """A sample by its key and files, from the tar `url`."""
    return Sample({name: bytes(data) for name, data in files}, __key__=key, __url__=url)
