"""Promises of the index: what is read is checked, and what is missing is told with the command that helps."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Index, ShardsError
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.blocks import BLOCK_DTYPE, pack_blocks
from shards.dataset.index import Shard
from shards.sources.drawn.rooms import Rooms
from shards.storage import store

A_SUM = "0" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("made"))
    index = build(Rooms(25, 8), url, size=8, shard_images=10, block_samples=4, workers=1)
    return url, index


@pytest.fixture
def dataset(made, tmp_path):
    for name in store.sizes(made[0]):
        (tmp_path / name).write_bytes(store.read_bytes(store.join(made[0], name)))
    return str(tmp_path), made[1]


def an_index(**changes):
    shards = (Shard("a.tar", 5, 10240, A_SUM, (1, 3)), Shard("b.tar", 4, 10240, A_SUM))
    fields = {
        "version": 1, "encoding": "npy", "image_size": 8, "block_samples": 4, "record_bytes": 1024,
        "classes": ("cat", "dog"), "shards": shards, "blocks_sha256": A_SUM, "source": {"source": "test"},
    }  # fmt: skip
    return Index(**(fields | changes))


def test_an_index_reads_back_as_it_was_saved(dataset):
    url, index = dataset
    assert indexes.load(url) == index
    assert indexes.parse(json.loads(indexes.dump(an_index())), "x") == an_index()


def test_counts_are_those_of_the_shards():
    index = an_index()
    assert (index.samples, index.kept, index.bytes, index.blocks) == (9, 7, 20480, 3)
    assert index.block_counts().tolist() == [4, 1, 4]
    assert index.block_starts().tolist() == [0, 2, 3]


def test_the_block_table_has_a_row_per_block_end_to_end(dataset):
    url, index = dataset
    table = indexes.load_blocks(url, index)
    assert index.block_counts().tolist() == [4, 4, 2, 4, 4, 2, 4, 1]
    np.testing.assert_array_equal(table["bytes"], index.block_counts() * index.record_bytes)
    assert table["offset"][index.block_starts()[:-1]].tolist() == [0, 0, 0]


def test_a_good_listing_passes(dataset):
    indexes.check_listing(*dataset)


def test_a_missing_shard_is_named_with_the_command(dataset):
    url, index = dataset
    store.remove(store.join(url, "shard-000001.tar"))
    with pytest.raises(
        ShardsError, match=r"shard-000001\.tar is in index\.json but not there; run: .* verify"
    ):
        indexes.check_listing(url, index)


def test_a_shard_of_another_length_is_named_with_both(dataset):
    url, index = dataset
    where = store.join(url, "shard-000002.tar")
    store.write_bytes(where, store.read_bytes(where)[:-512])
    message = r"shard-000002\.tar has 19968 bytes, index\.json says 20480; run: python -m shards verify"
    with pytest.raises(ShardsError, match=message):
        indexes.check_listing(url, index)


def test_each_way_to_have_no_index_has_its_own_way_out(tmp_path):
    with pytest.raises(ShardsError, match=r"does not exist; to make a dataset run: python -m shards build"):
        indexes.load(str(tmp_path / "no"))
    with pytest.raises(ShardsError, match=r"is empty; to fill it run: python -m shards build"):
        indexes.load(str(tmp_path))
    (tmp_path / "cat.jpg").write_bytes(b"")
    with pytest.raises(ShardsError, match=r"has files but no tar shards; .* python -m shards build folder"):
        indexes.load(str(tmp_path))
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(ShardsError, match=r"has tars but no index\.json; run: python -m shards index"):
        indexes.load(str(tmp_path))


def test_a_missing_block_table_is_told(dataset):
    url, index = dataset
    store.remove(store.join(url, "blocks.npy"))
    with pytest.raises(ShardsError, match=r"blocks\.npy is not there though index\.json is; run: .* index"):
        indexes.load_blocks(url, index)


def test_a_block_table_of_another_build_is_refused(dataset):
    url, index = dataset
    where = store.join(url, "blocks.npy")
    store.write_bytes(where, store.read_bytes(where)[:-1] + b"\0")
    with pytest.raises(ShardsError, match="sha256 differs"):
        indexes.load_blocks(url, index)


@pytest.mark.parametrize(
    ("field", "row", "value"), [("offset", 1, 1), ("offset", 3, 40), ("bytes", 7, 2**31), ("bytes", 0, 5)]
)
def test_a_block_table_with_gaps_is_refused_even_with_a_right_checksum(dataset, field, row, value):
    url, index = dataset
    table = indexes.load_blocks(url, index).copy()
    table[field][row] = value
    data = pack_blocks(table)
    store.write_bytes(store.join(url, "blocks.npy"), data)
    for stride in (index.record_bytes, 0):
        hostile = replace(index, blocks_sha256=hashlib.sha256(data).hexdigest(), record_bytes=stride)
        with pytest.raises(ShardsError, match="do not lie end to end"):
            indexes.load_blocks(url, hostile)


def test_a_block_table_with_too_few_rows_is_refused(dataset):
    url, index = dataset
    data = pack_blocks(np.zeros(3, BLOCK_DTYPE))
    store.write_bytes(store.join(url, "blocks.npy"), data)
    with pytest.raises(ShardsError, match="not a table of the 8 blocks"):
        indexes.load_blocks(url, replace(index, blocks_sha256=hashlib.sha256(data).hexdigest()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2, this program reads 1"),
        ({"version": "1"}, 'version is "1", not a whole number'),
        ({"version": True}, "version is true, not a whole number"),
        ({"encoding": "tiff"}, 'encoding is "tiff", not a text like'),
        ({"image_size": 0}, r"image_size is 0, not a whole number in \[4, 1024\]"),
        ({"image_size": 64.0}, "image_size is 64.0"),
        ({"block_samples": 0}, "block_samples is 0"),
        ({"record_bytes": -1}, "record_bytes is -1"),
        ({"classes": "cat"}, 'classes is "cat", not a list'),
        ({"classes": [1]}, "not a list of texts"),
        ({"shards": []}, "0 shards with 0 names"),
        ({"shards": [7]}, "a shard is 7, not an object"),
        ({"source": None}, "source is missing, not an object"),
        ({"blocks_sha256": "zz"}, "blocks_sha256 is"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(changes, message):
    fields = json.loads(indexes.dump(an_index())) | changes
    with pytest.raises(ShardsError, match=message) as caught:
        indexes.parse(fields, "s3://b/index.json")
    assert str(caught.value).startswith("s3://b/index.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../a.tar"}, "name is"),
        ({"name": "a/b.tar"}, "name is"),
        ({"name": "a.tar\n"}, "name is"),
        ({"name": "b.tar"}, "2 shards with 1 names"),
        ({"samples": 0}, "samples is 0"),
        ({"samples": 11}, r"samples is 11, not a whole number in \[1, 10\]"),
        ({"bytes": 2**60}, "bytes is"),
        ({"sha256": None}, "sha256 is missing"),
        ({"removed": [3, 1]}, "rising whole numbers"),
        ({"removed": [5]}, "rising whole numbers below 5"),
        ({"removed": {}}, "removed is {}, not a list"),
    ],
)
def test_a_wrong_shard_is_one_line(changes, message):
    fields = json.loads(indexes.dump(an_index()))
    fields["shards"][0] |= changes
    with pytest.raises(ShardsError, match=message):
        indexes.parse(fields, "index.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"version": 1}'])
def test_a_file_that_is_no_index_is_one_line(tmp_path, data):
    (tmp_path / "index.json").write_bytes(data)
    with pytest.raises(ShardsError, match=r"index\.json") as caught:
        indexes.load(str(tmp_path))
    assert "\n" not in str(caught.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [[name] for name in json.loads(indexes.dump(an_index()))]
PLACES += [["shards", number, name] for number in (0, 1) for name in ("name", "samples", "bytes", "removed")]


@settings(max_examples=200, deadline=None)
@given(place=st.sampled_from(PLACES), value=ANYTHING, drop=st.booleans())
def test_no_value_anywhere_raises_anything_but_a_shards_error(place, value, drop):
    fields = inner = json.loads(indexes.dump(an_index()))
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    if drop:
        del inner[place[-1]]
    try:
        index = indexes.parse(fields, "index.json")
    except ShardsError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert index.samples == sum(shard.samples for shard in index.shards)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
def test_no_damaged_byte_raises_anything_but_a_shards_error(tmp_path_factory, at, byte, cut):
    data = bytearray(indexes.dump(an_index()))
    data[at % len(data)] = byte
    folder = tmp_path_factory.getbasetemp()
    (folder / "index.json").write_bytes(data[: at % len(data)] if cut else data)
    try:
        indexes.load(str(folder))
    except ShardsError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_any_flipped_bit_of_an_index_is_seen(tmp_path):
    url = str(tmp_path / "set")
    index = build(Rooms(40, 8), url, size=8, shard_images=20, block_samples=5, workers=1)
    path = tmp_path / "set" / "index.json"
    whole = path.read_bytes()
    end = whole.index(b'"sum"')
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            found = indexes.load(url)
        except ShardsError:
            continue
        assert at >= end, at
        assert found == index
