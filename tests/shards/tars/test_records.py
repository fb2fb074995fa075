"""Promises about bytes: tars that any tool reads, records of one stride, and no trust in what is read."""

import io
import subprocess
import tarfile

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shards.dataset.blocks import BLOCK_DTYPE, block_sum, cut_blocks, pack_blocks, parse_blocks
from shards.errors import ShardsError
from shards.tars.records import (
    PIXELS_OFFSET,
    TAR_BLOCK,
    Buffer,
    files_in,
    npy_header,
    pack_record,
    parse_records,
    tar_end,
    tar_header,
)
from tests.shards.dataset.foreign import pack


def pictures_in(data: bytes) -> list[Buffer]:
    files = files_in(data)
    return [files.picture(sample) for sample in range(len(files))]


def a_tar(samples: int = 3, size: int = 8) -> bytes:
    image = npy_header(size) + bytes(range(256))[: size * size * 3].ljust(size * size * 3, b"\7")
    body = b"".join(
        pack_record(f"{sample:08d}", [("npy", image), ("json", b'{"label":%d}' % sample)])
        for sample in range(samples)
    )
    return body + tar_end(len(body))


def pack_pax(name: str, data: bytes, headers: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.size, member.pax_headers = len(data), headers
        tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize("size", [4, 8, 64, 1000, 1024])
def test_the_npy_header_is_the_one_numpy_writes(size):
    stream = io.BytesIO()
    np.save(stream, np.zeros((size, size, 3), np.uint8))
    assert stream.getvalue()[:128] == npy_header(size)


def test_gnu_tar_lists_our_tars_without_a_word(tmp_path):
    (tmp_path / "a.tar").write_bytes(a_tar())
    told = subprocess.run(["tar", "tvf", tmp_path / "a.tar"], capture_output=True, text=True, check=True)
    assert told.stderr == ""
    assert [line.split()[-1] for line in told.stdout.splitlines()][:2] == ["00000000.npy", "00000000.json"]


def test_python_tarfile_reads_our_tars_and_finds_no_owner_and_no_time():
    with tarfile.open(fileobj=io.BytesIO(a_tar())) as tar:
        members = tar.getmembers()
        assert len(members) == 6
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
        assert np.load(io.BytesIO(tar.extractfile("00000001.npy").read())).shape == (8, 8, 3)


def test_our_header_is_the_one_python_tarfile_writes():
    member = tarfile.TarInfo("00000007.npy")
    member.size, member.mtime = 12416, 0
    assert member.tobuf(tarfile.USTAR_FORMAT) == tar_header("00000007.npy", 12416)


def test_a_tar_is_padded_as_tar_pads():
    assert len(a_tar(1)) == 10240
    assert all(len(a_tar(samples)) % 10240 == 0 for samples in (5, 9, 13))


def test_records_are_parsed_from_a_whole_tar_and_from_a_range_of_it():
    data = a_tar()
    records = parse_records(data)
    assert [record.key for record in records] == ["00000000", "00000001", "00000002"]
    assert [record.meta() for record in records] == [{"label": 0}, {"label": 1}, {"label": 2}]
    part = parse_records(memoryview(data)[records[1].start : records[1].stop])
    assert [record.key for record in part] == ["00000001"]
    assert part[0].image() == ("npy", records[1].members["npy"])


def test_a_block_of_npy_records_is_one_strided_array():
    data = a_tar(3)
    stride = parse_records(data)[0].stop
    pixels = np.frombuffer(data, np.uint8, 3 * stride).reshape(3, stride)
    pixels = pixels[:, PIXELS_OFFSET : PIXELS_OFFSET + 8 * 8 * 3].reshape(3, 8, 8, 3)
    for record, image in zip(parse_records(data), pixels, strict=True):
        np.testing.assert_array_equal(np.load(io.BytesIO(record.members["npy"])), image)


def test_pax_headers_belong_to_the_record_that_follows():
    data = pack_pax("dir/a.b.png", b"x", {"mtime": "1.5"})
    (record,) = parse_records(data)
    assert (record.key, list(record.members), record.start) == ("dir/a", ["b.png"], 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (a_tar()[:700], "cut short"),
        (a_tar()[:300], "cut short"),
        (b"\1" * 1024, "no ustar mark"),
        (a_tar()[:100] + b"7" + a_tar()[101:], "does not match its checksum"),
        (a_tar()[:148] + b"zzzzzz\0 " + a_tar()[156:], "no octal number"),
        (tar_header("/etc/x.npy", 0), "leaves its folder"),
        (tar_header("a/../../x.npy", 0), "leaves its folder"),
        (tar_header("a.npy", 0) * 2, "is there twice"),
        (a_tar() + b"tail", "after the end of the tar"),
    ],
)
def test_a_damaged_or_hostile_tar_is_one_line(data, message):
    with pytest.raises(ShardsError, match=message) as caught:
        parse_records(data, where="s3://b/a.tar")
    assert str(caught.value).startswith("s3://b/a.tar")
    assert "\n" not in str(caught.value)


def test_a_link_is_refused():
    link = tarfile.TarInfo("a.npy")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(ShardsError, match="a link or a special file"):
        parse_records(link.tobuf(tarfile.USTAR_FORMAT))


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "..", "a\0"])
def test_a_key_that_would_change_the_name_is_refused(key):
    with pytest.raises(ShardsError, match="number the samples instead"):
        pack_record(key, [("npy", b"")])


def test_a_name_too_long_for_ustar_is_refused():
    with pytest.raises(ShardsError, match="does not fit a USTAR header"):
        pack_record("k" * 100, [("npy", b"")])


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_json_member_that_is_no_object_is_one_line(text):
    (record,) = parse_records(pack_record("7", [("json", text)]))
    with pytest.raises(ShardsError, match=r"sample 7: its \.json member is not"):
        record.meta()


@pytest.mark.parametrize(("records", "lengths"), [(6, [2, 2, 2]), (7, [2, 2, 2, 1]), (1, [1]), (0, [])])
def test_the_last_block_of_a_shard_may_be_short(records, lengths):
    data = bytes(range(7)) * TAR_BLOCK
    table = cut_blocks(data, [TAR_BLOCK * (number + 1) for number in range(records)], 2)
    assert (table["bytes"] // TAR_BLOCK).tolist() == lengths
    assert [block_sum(data[row["offset"] :][: row["bytes"]]) for row in table] == table["sum"].tolist()


def test_the_block_table_is_a_file_that_numpy_reads():
    table = cut_blocks(bytes(4096), [1024, 2048, 4096], 2)
    np.testing.assert_array_equal(np.load(io.BytesIO(pack_blocks(table))), table)
    np.testing.assert_array_equal(parse_blocks(pack_blocks(table), 2), table)
    assert BLOCK_DTYPE.itemsize == 20


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"x" + b[1:], lambda b: b""]
)
def test_anything_but_the_block_table_is_refused(damage):
    table = cut_blocks(bytes(4096), [1024, 2048, 4096], 2)
    with pytest.raises(ShardsError, match="not a table of the 2 blocks"):
        parse_blocks(damage(pack_blocks(table)), 2)


EXTENSIONS = ("jpg", "JPG", "png", "seg.png", "cls", "json", "txt", "mask.jpg", "npy", "webp", "x.y")
TAR_FORMATS = (tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT)


@given(
    samples=st.lists(
        st.tuples(
            st.sampled_from(["", "a/", "v1.0/", "long" * 20 + "/", "long" * 30 + "/"]),
            st.dictionaries(st.sampled_from(EXTENSIONS), st.integers(0, 1500), min_size=1, max_size=4),
            st.sampled_from([None, None, None, "README", "x/.hidden", "d/"]),
        ),
        max_size=5,
    ),
    tar_format=st.sampled_from(TAR_FORMATS),
)
def test_pictures_of_any_tar_are_those_of_a_full_parse(samples, tar_format):
    members = []
    for number, (folder, files, odd) in enumerate(samples):
        members += [(f"{folder}{number:06d}.{extension}", bytes(size)) for extension, size in files.items()]
        members += [(odd, b"")] if odd else []
    assume(all(len({name.lower() for name in files}) == len(files) for _, files, _ in samples))
    try:
        data = pack(members, format=tar_format)
    except ValueError:  # USTAR has no room for such a name
        assume(False)
    records = parse_records(data)
    data = data[: records[-1].stop] if records else b""
    expected = [image[1] if (image := record.image()) else b"" for record in records]
    assert [bytes(found) for found in pictures_in(data)] == [bytes(image) for image in expected]


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_as_webdataset_writes_them_need_no_full_parse(tar_format, monkeypatch):
    data = pack(
        [(f"{n:09d}.{kind}", bytes(9)) for n in range(3) for kind in ("cls", "jpg")], format=tar_format
    )
    data = data[: parse_records(data)[-1].stop]
    monkeypatch.setattr("shards.tars.records.parse_records", None)
    assert [bytes(found) for found in pictures_in(data)] == [bytes(9)] * 3


def test_what_is_no_run_of_whole_records_is_refused():
    one = pack_record("00000001", [("jpg", b"abc"), ("json", b"{}")])
    for data in (one[:-1], one[:600], one[:1400]):
        with pytest.raises(ShardsError, match="cut short"):
            pictures_in(data)
    assert pictures_in(b"") == []
