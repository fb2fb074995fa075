"""Promises to those who bring their own tars: they are adopted as they are, or refused in one line."""

import json
import subprocess
import tarfile
import tracemalloc

import numpy as np
import pytest
import webdataset

from shards import ShardsError
from shards.dataset import index as indexes
from shards.dataset import scan
from shards.dataset.adopt import reindex
from shards.dataset.describe import read_sample
from shards.dataset.verify import verify
from shards.pictures.codec import decode
from shards.storage import store
from shards.tars.headers import TAR_BLOCK
from shards.tars.records import pack_record, parse_records, tar_end, tar_header
from tests.shards.dataset.foreign import pack, picture, write
from tests.shards.tars.test_records import pictures_in

LONG = "a-rather-long-folder/" * 7 + "n" * 60


def test_samples_of_many_files_are_adopted(tmp_path):
    members = []
    for number in range(7):
        members += [
            (f"train/{number:03}.seg.png", picture(number + 1, encoding="png")),
            (f"train/{number:03}.jpg", picture(number)),
            (f"train/{number:03}.txt", b"a room"),
            (f"train/{number:03}.json", json.dumps({"caption": "a room"}).encode()),
            (f"train/{number:03}.cls", b"%d\n" % (number % 3)),
            (f"train/{number:03}.pkl", b"cos\nsystem\n(S'false'\ntR."),
        ]
    url = write(tmp_path / "set", [("train/", b""), ("README", b"x" * 600), (".DS_Store", b"x"), *members])
    index = reindex(url, block_samples=3)
    assert (index.samples, index.encoding, index.image_size, index.record_bytes) == (7, "jpg", 16, 0)
    assert index.classes == ("0", "1", "2")
    assert list(verify(url, decode=True)) == []
    for number in range(7):
        pixels, meta = read_sample(url, indexes.load(url), position=number)
        np.testing.assert_array_equal(pixels, decode(picture(number)))
        assert meta == {"caption": "a room", "label": number % 3}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_are_read_however_they_are_written(format):
    folder = LONG if format != tarfile.USTAR_FORMAT else LONG[:150]
    names = [f"{folder}/{number}" for number in range(2)]
    data = pack([(f"{name}.{kind}", b"x" * 700) for name in names for kind in ("jpg", "json")], format=format)
    assert [record.key for record in parse_records(data)] == names


def test_tars_of_gnu_tar_with_long_names_and_folders_are_adopted(tmp_path):
    place = tmp_path / "in" / LONG
    place.mkdir(parents=True)
    for number in range(3):
        (place / f"{number}.jpg").write_bytes(picture(number))
        (place / f"{number}.cls").write_bytes(b"5")
    for format in ("gnu", "posix"):
        url = tmp_path / format
        url.mkdir()
        command = [
            "tar",
            f"--format={format}",
            "--sort=name",
            "-cf",
            url / "a.tar",
            "-C",
            tmp_path / "in",
            ".",
        ]
        subprocess.run(command, check=True)
        index = reindex(str(url))
        assert (index.samples, index.classes[5:]) == (3, ("5",))
        assert list(verify(str(url), decode=True)) == []


def test_tars_of_webdatasets_own_writer_are_adopted(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(4):
            writer.write({"__key__": f"{LONG}/{number}", "jpg": picture(number), "cls": number})
    assert b"PaxHeader" in (tmp_path / "a.tar").read_bytes()
    assert reindex(str(tmp_path)).classes == ("0", "1", "2", "3")
    assert list(verify(str(tmp_path), decode=True)) == []


def test_a_pax_length_goes_before_the_one_in_the_header():
    record = b"16 size=0000700\n"
    pax = tar_header("x", len(record))
    pax = _with_kind(pax, b"x") + record.ljust(TAR_BLOCK, b"\0")
    data = (
        pax
        + tar_header("a.jpg", 0)
        + b"x" * 700
        + bytes(324)
        + tar_header("a.json", 2)
        + b"{}".ljust(512, b"\0")
    )
    (record,) = parse_records(data)
    assert (bytes(record.members["jpg"]), bytes(record.members["json"])) == (b"x" * 700, b"{}")


def _with_kind(header: bytes, kind: bytes) -> bytes:
    changed = header[:148] + b" " * 8 + kind + header[157:]
    return changed[:148] + b"%06o\0 " % sum(changed) + changed[156:]


def test_blocks_of_adopted_tars_are_whole_records(tmp_path):
    members = [(f"{number}.{kind}", picture(number)) for number in range(5) for kind in ("jpg", "x")]
    url = write(tmp_path / "set", [("d/", b""), *members, ("z/", b"")])
    index = reindex(url, block_samples=2)
    data = store.read_bytes(store.join(url, "00000.tar"))
    records = parse_records(data)
    table = indexes.load_blocks(url, index)
    stops = [records[1].stop, records[3].stop, records[4].stop]
    assert (table["offset"] + table["bytes"]).tolist() == stops
    for row, count in zip(table, [2, 2, 1], strict=True):
        block = data[row["offset"] :][: row["bytes"]]
        assert len(parse_records(block)) == count
        assert [bytes(image) for image in pictures_in(block)] == [
            bytes(record.members["jpg"]) for record in parse_records(block)
        ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", picture(0)), ("b.png", picture(0, encoding="png"))], "makes it jpg 16 x 16, png 16 x 16"),
        ([("a.jpg", picture(0)), ("b.jpg", picture(0, size=32))], "makes it jpg 16 x 16, jpg 32 x 32"),
        ([("a.npy", picture(0, size=2048, encoding="npy"))], "is 2048 x 2048; we serve sides from 4 to 1024"),
        (
            [("a.jpg", picture(0)), ("b.txt", b"")],
            r"sample b has no image that we read \(it has txt, and mem",
        ),
        ([("a.jpg", b"\xff\xd8\xff")], r"sample a: it does not decode.*; write the tar without it"),
        ([("a.jpg", picture(0)), ("a.json", b"{")], r"sample a: its \.json member is not JSON"),
        ([("a.jpg", picture(0)), ("a.JPG", picture(0))], r"'a\.JPG' is there twice in one sample"),
        ([("../a.jpg", picture(0))], r"refusing the member name '\.\./a\.jpg': it .* leaves its folder"),
        ([("/a.jpg", picture(0))], "refusing the member name '/a.jpg'"),
        ([("a.jpg", picture(0)), ("d/.jpg", picture(1))], r"'d/\.jpg' is a picture without a name; write"),
        ([("a\n.jpg", picture(0))], "refusing the member name .*control signs"),
        ([("a.json", bytes(scan.MAX_MEMBER_BYTES + 1))], r"'a\.json' has 33554433 bytes, more than"),
    ],
)
def test_what_cannot_be_adopted_is_one_line(tmp_path, members, message):
    url = write(tmp_path / "set", members)
    with pytest.raises(ShardsError, match=message) as caught:
        reindex(url)
    assert str(caught.value).startswith(f"{url}/00000.tar")
    assert "\n" not in str(caught.value)
    assert store.sizes(url).keys() == {"00000.tar"}


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (b"x", b"8 path=a\n", "this PAX header is damaged"),
        (b"x", b"99 path=a\n", "this PAX header is damaged"),
        (b"x", b"no", "'no' in a PAX header is no length"),
        (b"x", b"12 path=../\n", "refusing the member name '../'"),
        (b"x", b"18 size=-00000700\n", "in a PAX header is no length"),
        (b"x", b"22 GNU.sparse.major=1\n", "a sparse file"),
        (b"g", b"11 size=70\n", "gives all files one name or length"),
        (b"L", b"/etc/a.jpg\0", "refusing the member name '/etc/a.jpg'"),
        (b"x", b"31 size=9999999999999999999999\n", "in a PAX header is no length"),
        (b"L", bytes(2**20 + 1), "of headers; it is damaged"),
    ],
)  # fmt: skip
def test_a_hostile_header_is_one_line(kind, body, message):
    header = _with_kind(tar_header("x", len(body)), kind)
    data = header + body + bytes(-len(body) % 512) + pack_record("a", [("jpg", b"x")])
    with pytest.raises(ShardsError, match=message):
        parse_records(data)


def test_a_tar_without_its_end_is_refused(tmp_path):
    data = pack([("a.jpg", picture(0)), ("b.jpg", picture(1))])
    stop = parse_records(data)[-1].stop
    for length, told in [(stop, "the end of the tar is missing"), (stop + 512, "half the end of the tar")]:
        (tmp_path / "a.tar").write_bytes(data[:length])
        with pytest.raises(ShardsError, match=told):
            reindex(str(tmp_path))
    assert [record.key for record in parse_records(data[:stop])] == ["a", "b"]


def test_a_large_tar_is_not_held_in_memory(tmp_path):
    body = b"".join(
        pack_record(f"{number}", [("jpg", picture(0)), ("bin", bytes(2**22))]) for number in range(24)
    )
    (tmp_path / "a.tar").write_bytes(body + tar_end(len(body)))
    length = len(body)
    del body
    tracemalloc.start()
    reindex(str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < length / 4
    tracemalloc.stop()


def test_shards_are_in_order_whatever_their_length(tmp_path):
    for shard in range(12):
        members = [(f"{shard}-{number}.jpg", picture(shard)) for number in range(30 if shard % 2 else 1)]
        write(tmp_path / "set", members, name=f"{shard:02}.tar")
    (tmp_path / "set" / "._00.tar").write_bytes(b"of another system")
    heard = []
    index = reindex(str(tmp_path / "set"), on_shard=heard.append)
    assert [shard.name for shard in index.shards] == [f"{shard:02}.tar" for shard in range(12)]
    assert [shard.samples for shard in index.shards] == [1, 30] * 6
    assert heard == list(index.shards)
    assert list(verify(str(tmp_path / "set"))) == []


def test_the_first_shard_that_is_wrong_is_the_one_told(tmp_path):
    for shard in range(12):
        write(
            tmp_path / "set",
            [(f"{shard}.jpg", picture(0, size=16 if shard < 5 else 32))],
            name=f"{shard:02}.tar",
        )
    with pytest.raises(ShardsError, match=r"05\.tar: sample 5 makes it jpg 16 x 16, jpg 32 x 32"):
        reindex(str(tmp_path / "set"))
    with pytest.raises(ShardsError, match=r"--block-images 0 is outside \[1, 1000000\]"):
        reindex(str(tmp_path / "set"), block_samples=0)
    (tmp_path / "set" / "a\\b.tar").write_bytes(b"")
    with pytest.raises(ShardsError, match="control signs or a backslash; rename the tar"):
        reindex(str(tmp_path / "set"))
