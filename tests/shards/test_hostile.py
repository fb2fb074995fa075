"""Promises about what others made or what broke on the way: a line that names it, never code run, never a
hang, never much memory.
"""

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards import ShardsError
from shards.__main__ import main
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.adopt import reindex
from shards.dataset.blocks import pack_blocks
from shards.dataset.verify import verify
from shards.pictures import codec
from shards.sources.drawn.rooms import Rooms
from shards.storage import store
from shards.tars.records import npy_header, pack_record, parse_records, tar_end
from tests.shards.dataset.foreign import pack, picture, write

SETTINGS = {"size": 16, "shard_images": 6, "block_samples": 4, "workers": 1}


@pytest.fixture(scope="module", params=["npy", "jpg"])
def made(request, tmp_path_factory):
    url = tmp_path_factory.mktemp(request.param) / "set"
    build(Rooms(10, 16), str(url), **SETTINGS, encoding=request.param)
    return url


@pytest.fixture
def dataset(made, tmp_path):
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def every_reader(tmp_path_factory, capsys):
    """Run each command that reads a dataset; what they told, each in one line and in no time."""
    out = tmp_path_factory.mktemp("out")

    def run(url):
        told = []
        for command in (
            ["info", url],
            ["verify", url, "--decode"],
            ["cat", url, "0", "--out", out / "x.png"],
            ["bench", url, "--seconds", "0.001"],
        ):
            began = time.monotonic()
            status = main([str(part) for part in command])
            assert time.monotonic() - began < 60
            said = capsys.readouterr()
            if status == 2:
                assert said.err.startswith("error: ")
                assert said.err.count("\n") == 1
                told.append(said.err)
            elif status == 1:
                told += said.out.splitlines()
        return told

    return run


def grown_bytes(act):
    """The most that Python and numpy held of new memory while `act` was done."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_growth_is_seen_after_a_higher_peak_too():
    for _ in range(2):
        assert 90 * 2**20 < grown_bytes(lambda: bytearray(os.urandom(2**20) * 100)) < 400 * 2**20


def test_a_tar_cut_at_any_byte_is_found(made, tmp_path):
    data = (made / "shard-000001.tar").read_bytes()
    for name in ("index.json", "blocks.npy", "shard-000000.tar"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    end = parse_records(data)[-1].stop
    cuts = sorted({0, 1, 511, 512, 513, end - 1, end, end + 1, end + 512, *range(0, end, end // 60 + 7)})
    bare = tmp_path / "bare"
    bare.mkdir()
    for cut in cuts:
        (tmp_path / "shard-000001.tar").write_bytes(data[:cut])
        found = list(verify(str(tmp_path), decode=True))
        assert found[0] == f"shard-000001.tar: {cut} bytes, the index says {len(data)}"
        assert len(found) == 2
        (bare / "a.tar").write_bytes(data[:cut])
        with pytest.raises(ShardsError, match=r"cut short|holds no samples") as caught:
            reindex(str(bare))
        assert "\n" not in str(caught.value)
    assert store.sizes(str(bare)).keys() == {"a.tar"}


@settings(max_examples=80, deadline=None)
@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_wherever_it_is(made, tmp_path_factory, at, bit):
    folder = tmp_path_factory.getbasetemp() / f"flipped-{made.parent.name}"
    folder.mkdir(exist_ok=True)
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    data = bytearray((folder / "shard-000000.tar").read_bytes())
    data[at % len(data)] ^= 1 << bit
    (folder / "shard-000000.tar").write_bytes(data)
    assert any("its sha256 differs" in line for line in verify(str(folder), decode=True))
    # Without sums to hold it against, it is refused, or adopted as it is and then whole.
    try:
        reindex(str(folder))
    except ShardsError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all("sample" in line for line in verify(str(folder), decode=True))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_bytes_raise_anything_but_a_shards_error(data):
    tar = bytearray(
        pack([("a" * 120 + ".jpg", b"x" * 600), ("b/", b""), ("b/c.json", b"{}")], format=tarfile.PAX_FORMAT)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 6000))
        piece = data.draw(st.binary(max_size=12))
        tar[at : at + len(piece)] = piece
    try:
        for record in parse_records(bytes(tar)):
            record.image()
            record.meta()
    except ShardsError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_two_tars_joined_are_told(dataset):
    first, second = (dataset / f"shard-00000{number}.tar" for number in (0, 1))
    first.write_bytes(first.read_bytes() + second.read_bytes())
    assert "the index says" in next(verify(str(dataset)))
    with pytest.raises(ShardsError, match=r"bytes after the end of the tar; .* two were joined"):
        reindex(str(dataset))


def test_missing_shards_are_named(dataset, every_reader):
    (dataset / "shard-000001.tar").unlink()
    assert list(verify(str(dataset))) == ["shard-000001.tar: missing"]
    assert any("shard-000001.tar" in line for line in every_reader(dataset))


def test_an_index_older_than_its_shard_is_told(dataset, made, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    encoding = indexes.load(str(made)).encoding
    build(Rooms(10, 16, seed=5), str(other), **SETTINGS, encoding=encoding)
    (dataset / "shard-000000.tar").write_bytes((other / "shard-000000.tar").read_bytes())
    found = list(verify(str(dataset)))
    assert all(line.startswith("shard-000000.tar: ") for line in found)
    assert any("differs" in line for line in found)
    (dataset / "blocks.npy").write_bytes((other / "blocks.npy").read_bytes())
    with pytest.raises(ShardsError, match=r"blocks\.npy is not the one index\.json was written with"):
        list(verify(str(dataset)))


class Bomb:
    """Pickled, it makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_nothing_in_a_tar_is_unpickled(tmp_path, every_reader):
    touched = tmp_path / "touched"
    bomb = pickle.dumps(Bomb(touched))
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb(touched)], dtype=object), allow_pickle=True)
    members = [
        ("a.jpg", picture(0)),
        ("a.pkl", bomb),
        ("a.pyd", bomb),
        ("a.pth", bomb),
        ("a.json", b'{"n":1}'),
    ]
    url = write(tmp_path / "good", members)
    reindex(url)
    assert every_reader(url) == []
    url = write(tmp_path / "bad", [("a.npy", objects.getvalue())])
    with pytest.raises(ShardsError, match=r"the \.npy is no uint8 array"):
        reindex(url)
    assert not touched.exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S"]
)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_and_devices_are_refused(tmp_path, kind, format):
    member = tarfile.TarInfo("folder/" * 12 + "a.jpg")
    member.type, member.linkname = kind, "/etc/passwd" if kind != tarfile.SYMTYPE else "x" * 90
    (tmp_path / "a.tar").write_bytes(member.tobuf(format) + bytes(1024))
    with pytest.raises(ShardsError, match=r"is a link or a special file|a sparse file"):
        reindex(str(tmp_path))


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def jpeg(width, height):
    data = bytearray(codec.encode(np.zeros((16, 16, 3), np.uint8), "jpg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(width, height):
    stream = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])
    data = bytearray(stream.getvalue())
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def npy(width, height):
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width}, 3), }}".encode()
    return npy_header(16)[:10] + text.ljust(117) + b"\n" + bytes(768)


@pytest.mark.parametrize("make", [png, jpeg, webp, npy])
def test_a_picture_that_claims_to_be_huge_takes_no_memory(tmp_path, make):
    bomb = make(60000, 60000)
    assert make(16, 16), "the maker itself works"
    codec.declared_size(picture(0, encoding="webp"))  # what is loaded once is loaded
    write(tmp_path / "set", [("a.jpg" if make is jpeg else f"a.{make.__name__}", bomb)])
    out = np.empty((16, 16, 3), np.uint8)

    def act():
        for look in (codec.decode, codec.declared_size, lambda data: codec.decode_into(data, out)):
            try:
                found = look(bomb)
            except ShardsError as error:
                assert "\n" not in str(error)  # noqa: PT017
            else:
                assert found == (60000, 60000)
        with pytest.raises(ShardsError, match=r"a\.(png|jpg|jpeg|webp|npy)|sample a"):
            reindex(str(tmp_path / "set"))

    assert grown_bytes(act) < 50 * 2**20


ABSURD = [-1, 1, 7, 2**32, 2**53, 10**400, float("nan"), None, "\ud800", []]
PLACES = [
    (*place, name)
    for place, names in (
        ((), ["version", "encoding", "image_size", "block_samples", "record_bytes", "classes", "source"]),
        (("shards", 0), ["name", "samples", "bytes", "sha256", "removed"]),
        (("source",), ["images"]),
        (("classes",), [0]),
    )
    for name in names
]


def read_once_where_refused(dataset, every_reader, refused):
    """Load the index; all readers where that succeeds, and the first time that it does not."""
    try:
        indexes.load(str(dataset))
    except ShardsError as error:
        assert "\n" not in str(error)  # noqa: PT017
        refused.append(error)
        if len(refused) > 1:
            return
    every_reader(dataset)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(map(str, place)))
def test_an_index_with_absurd_values_costs_nothing(dataset, every_reader, place):
    where = dataset / "index.json"
    good = json.loads(where.read_bytes()) | {"classes": ["one"]}

    def act():
        for value in ABSURD:
            fields = inner = json.loads(json.dumps(good))
            for step in place[:-1]:
                inner = inner[step]
            inner[place[-1]] = value
            where.write_text(json.dumps(fields))
            read_once_where_refused(dataset, every_reader, refused)

    refused = []
    assert grown_bytes(act) < 100 * 2**20


@pytest.mark.parametrize("column", ["offset", "bytes"])
@pytest.mark.parametrize("value", [0, 1, 2**31, 2**32 - 1])
def test_a_block_table_that_lies_is_refused_even_with_a_right_sum(dataset, every_reader, column, value):
    index = indexes.load(str(dataset))
    table = indexes.load_blocks(str(dataset), index).copy()
    table[column][-1] = value
    data = pack_blocks(table)
    huge = replace(index.shards[-1], bytes=2**40)  # so that the lie has room
    hostile = replace(
        index,
        shards=(*index.shards[:-1], huge),
        blocks_sha256=hashlib.sha256(data).hexdigest(),
        record_bytes=0,
    )
    (dataset / "blocks.npy").write_bytes(data)
    (dataset / "index.json").write_bytes(indexes.dump(hostile))
    assert any("shard-000001.tar" in line or "end to end" in line for line in every_reader(dataset))


def test_an_index_that_counts_wrongly_is_found(dataset, every_reader):
    index = indexes.load(str(dataset))
    more = replace(index.shards[0], samples=index.shards[0].samples + 1)
    hostile = replace(index, shards=(more, *index.shards[1:]), record_bytes=0)
    (dataset / "index.json").write_bytes(indexes.dump(hostile))
    found = list(verify(str(dataset), decode=True))
    assert found == ["shard-000000.tar: block 1: 2 samples, the index says 3"]
    assert main(["cat", str(dataset), "6"]) == 2


def test_pixels_that_are_not_where_the_stride_says_are_found(tmp_path):
    body = b"".join(
        pack_record(f"{number}", [("json", b"{}"), ("npy", picture(number, encoding="npy"))])
        for number in range(3)
    )
    (tmp_path / "a.tar").write_bytes(body + tar_end(len(body)))
    index = reindex(str(tmp_path))
    assert index.record_bytes == 0
    hostile = replace(index, record_bytes=len(body) // 3)
    (tmp_path / "index.json").write_bytes(indexes.dump(hostile))
    assert (
        len([line for line in verify(str(tmp_path), decode=True) if "its pixels are not where" in line]) == 3
    )


def nested(depth, inner="1"):
    return "[" * depth + inner + "]" * depth


def test_deep_json_is_one_line_at_any_depth(dataset, every_reader):
    where = dataset / "index.json"
    fields = json.loads(where.read_bytes())
    for depth in (49, 50, *range(800, 1000, 40), 10**5):
        refused = []
        for name in ("source", "encoding", "classes"):
            text = json.dumps(fields | {name: "HERE"})
            deep = f'{{"a": {nested(depth)}}}' if name == "source" else nested(depth)
            where.write_text(text.replace('"HERE"', deep))
            read_once_where_refused(dataset, every_reader, refused)
        where.write_text(nested(depth))
        read_once_where_refused(dataset, every_reader, refused)


@pytest.mark.parametrize("depth", [40, *range(700, 1000, 60), 10**5])
def test_deep_json_of_a_sample_is_one_line(tmp_path, every_reader, capsys, depth):
    deep = f'{{"label": {nested(depth)}, "odd": "\\ud800", "no": NaN}}'.encode()
    url = write(tmp_path / "set", [("a.jpg", picture(0)), ("a.json", deep)])
    if main(["index", url]) == 0:
        every_reader(url)
    told = capsys.readouterr().err
    assert not told or told.startswith(f"error: {url}/00000.tar: sample a: its .json member is not JSON")
    assert bool(told) == (depth > 500)
