"""LSUN's LMDBs: WebP and JPEG under hex keys, with the oddities known from the field."""

import hashlib
import io
import pickle
import sys

import lmdb
import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.building.build import build
from shards.dataset.describe import read_sample
from shards.dataset.index import load
from shards.errors import ShardsError
from shards.pictures.codec import decode
from shards.sources.drawn.rooms import Rooms
from shards.sources.published.lsun import Lsun


def encoded(position, form):
    stream = io.BytesIO()
    options = {"lossless": True} if form == "WEBP" else {"quality": 75}
    Image.fromarray(Rooms(100, 48).item(position).image).save(stream, form, **options)
    return stream.getvalue()


def write_lmdb(path, values):
    """`values` by key, as LSUN's exporter writes them."""
    with lmdb.open(str(path), map_size=2**26) as env, env.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    (path / "lock.mdb").unlink()
    return path


def lsun_like(path, images=12):
    """Alternating WebP and JPEG, whatever the key says; returns the values by key."""
    values = {
        hashlib.sha1(str(n).encode()).hexdigest().encode(): encoded(n, "WEBP" if n % 2 else "JPEG")
        for n in range(images)
    }
    write_lmdb(path, values)
    return values


def test_every_picture_is_read_exactly_and_in_the_order_of_keys(tmp_path):
    values = lsun_like(tmp_path / "in")
    source = pickle.loads(pickle.dumps(Lsun(str(tmp_path / "in"))))
    items = [source.item(position) for position in range(source.samples)]
    assert [item.name.encode() for item in items] == sorted(values)
    assert all(item.image == values[item.name.encode()] for item in items)
    index = build(source, str(tmp_path / "out"), size=48, workers=2, shard_images=5)
    for position, item in enumerate(items):
        pixels, meta = read_sample(str(tmp_path / "out"), index, position=position)
        np.testing.assert_array_equal(pixels, decode(item.image))
        assert meta == {"name": item.name}


def test_the_database_is_not_written_to(tmp_path):
    lsun_like(tmp_path / "in")
    before = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    Lsun(str(tmp_path / "in")).item(0)
    assert {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()} == before


def test_empty_values_and_broken_pictures_are_counted(tmp_path, capsys):
    values = lsun_like(tmp_path / "good")
    keys = sorted(values)
    values[keys[1]] = values[keys[4]] = b""
    values[keys[2]] = b"<html>"
    values[keys[3]] = values[keys[3]][:500]
    write_lmdb(tmp_path / "in", values)
    assert main(["build", "lsun", str(tmp_path / "in"), str(tmp_path / "out"), "--size", "32"]) == 0
    told = capsys.readouterr().err
    assert "left out 4 pictures (empty value: 2, " in told
    assert f"{keys[1].decode()} has no value" in told
    assert load(str(tmp_path / "out")).samples == len(values) - 4


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_database_is_one_line_and_kills_nobody(tmp_path, share):
    lsun_like(tmp_path / "in", images=40)
    data = tmp_path / "in" / "data.mdb"
    whole = data.read_bytes()
    data.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ShardsError, match=r"it is cut: unpack|is no LMDB, or damaged"):
        Lsun(str(tmp_path / "in"))


def test_a_database_that_kills_its_reader_is_one_line(tmp_path, monkeypatch):
    lsun_like(tmp_path / "in", images=40)
    data = bytearray((tmp_path / "in" / "data.mdb").read_bytes())
    for at in range(2 * 4096, len(data), 4096):  # page numbers and pointers of every page but the first two
        data[at + 16 : at + 64] = b"\xff" * 48
    (tmp_path / "in" / "data.mdb").write_bytes(data)
    with pytest.raises(ShardsError, match=r"is damaged|is no LMDB|is not 40 hex digits|holds no pictures"):
        Lsun(str(tmp_path / "in"))


def test_what_is_not_lsun_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(ShardsError, match=r"has no data\.mdb; give the folder"):
        Lsun(str(tmp_path))
    (tmp_path / "data.mdb").write_bytes(b"hello" * 4096)
    with pytest.raises(ShardsError, match="is no LMDB, or damaged"):
        Lsun(str(tmp_path))
    write_lmdb(tmp_path / "other", {b"length": b"12"})
    with pytest.raises(ShardsError, match="key b'length' is not 40 hex digits"):
        Lsun(str(tmp_path / "other"))
    write_lmdb(tmp_path / "none", {})
    with pytest.raises(ShardsError, match="holds no pictures"):
        Lsun(str(tmp_path / "none"))
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ShardsError, match=r"pip install -c constraints\.txt -e '\.\[lsun\]'"):
        Lsun(str(tmp_path / "none"))


def test_an_enormous_value_is_not_read(tmp_path, monkeypatch):
    lsun_like(tmp_path / "in", images=2)
    source = Lsun(str(tmp_path / "in"))
    monkeypatch.setattr("shards.sources.published.lsun.MAX_FILE_BYTES", 4)
    told = []
    with pytest.raises(ShardsError, match="none of the 2 pictures is usable"):
        build(source, str(tmp_path / "out"), size=32, workers=1, on_failures=told.extend)
    assert {failure.reason for failure in told} == {"too large"}
