"""Promises of storage, kept by a real object store: what a folder does, a bucket does."""

import hashlib
import os
import subprocess
import sys
import time

import pytest

from shards.__main__ import main
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.copy import copy
from shards.dataset.verify import verify
from shards.errors import MissingError, ShardsError, StoreError
from shards.sources.drawn.rooms import Rooms
from shards.storage import store
from shards.storage.retries import Limits

pytestmark = pytest.mark.s3

SETTINGS = {"size": 16, "shard_images": 40, "block_samples": 8}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("rooms") / "set")
    build(Rooms(100, 16), url, **SETTINGS, workers=1)
    return url


def contents(url):
    return {name: hashlib.sha256(store.read_bytes(store.join(url, name))) for name in store.sizes(url)}


def same(url, other):
    one, two = contents(url), contents(other)
    return {name: found.hexdigest() for name, found in one.items()} == {
        name: found.hexdigest() for name, found in two.items()
    }


def test_a_bucket_keeps_the_promises_of_a_folder(s3_folder):
    store.make_folder(s3_folder)
    where = store.join(s3_folder, "a.bin")
    assert not store.exists(where)
    assert not store.exists(s3_folder)
    store.write_bytes(where, b"0123456789")
    assert store.exists(where)
    assert store.exists(s3_folder)
    assert store.read_bytes(where) == b"0123456789"
    assert store.read_range(where, 2, 5) == b"234"
    assert store.read_range(where, 10, 10) == b""
    store.write_bytes(where, b"new")
    assert store.read_bytes(where) == b"new"
    store.write_bytes(store.join(s3_folder, "A.bin"), b"")
    assert store.read_bytes(store.join(s3_folder, "A.bin")) == b""
    assert store.sizes(s3_folder) == {"A.bin": 0, "a.bin": 3}
    store.remove(where)
    store.remove(where)
    assert store.sizes(s3_folder) == {"A.bin": 0}
    with pytest.raises(MissingError, match=r"cannot read .*a\.bin: it is not there"):
        store.read_bytes(where)
    with pytest.raises(MissingError, match=r"cannot list .*: it is not there"):
        store.sizes(f"{s3_folder}/no")


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (8, 12), (20, 30)])
def test_a_read_past_the_end_is_an_error_at_once(s3_folder, start, stop):
    where = store.join(s3_folder, "a.bin")
    store.write_bytes(where, b"0123456789")
    with pytest.raises(StoreError, match=r"it has 10 bytes; the file is shorter than its index says$"):
        store.read_range(where, start, stop)


def test_a_large_file_goes_up_in_parts_and_comes_down_in_pieces(s3_folder):
    data = os.urandom(2**20) * 110
    where = store.join(s3_folder, "large.bin")
    before = store.counters.snapshot()
    store.write_bytes(where, data)
    assert store.read_bytes(where) == data
    counted = store.counters.snapshot() - before
    assert (counted.written_bytes, counted.read_bytes) == (len(data), len(data))
    assert (counted.requests, counted.retries) == (1 + 1 + 4 + 1, 0)


def test_a_dataset_built_in_a_bucket_is_the_one_built_in_a_folder(s3_folder, rooms):
    build(Rooms(100, 16), s3_folder, **SETTINGS, workers=2)
    assert same(s3_folder, rooms)
    assert list(verify(s3_folder, decode=True)) == []


def test_every_command_works_in_a_bucket(s3_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = ["build", "rooms", s3_folder, "--images", "30", "--size", "16", "--shard-images", "10"]
    assert main([*made, "--workers", "1"]) == 0
    assert main(made) == 0
    assert main(["verify", s3_folder, "--decode"]) == 0
    assert main(["info", s3_folder]) == 0
    assert main(["cat", s3_folder, "7", "--out", "x.png"]) == 0
    store.remove(store.join(s3_folder, "index.json"))
    assert main(["info", s3_folder]) == 2
    assert main(["index", s3_folder]) == 0
    assert main(["verify", s3_folder]) == 0
    told = capsys.readouterr()
    assert "built: 30 images, 3 shards" in told.out
    assert "already built: 30 images" in told.out
    assert told.out.count("whole: 30 images, 0 problems") == 2
    assert told.err.count("\n") == 1
    assert "has tars but no index.json; run: python -m shards index s3://" in told.err


def test_a_dataset_goes_to_a_bucket_and_back_unchanged(s3_folder, rooms, tmp_path, capsys):
    assert main(["cp", rooms, s3_folder]) == 0
    assert main(["cp", s3_folder, str(tmp_path / "back"), "--threads", "2"]) == 0
    assert capsys.readouterr().out.count("copied: 3 shards (") == 2
    assert same(rooms, s3_folder)
    assert same(rooms, str(tmp_path / "back"))


def test_a_copy_goes_on_where_it_was_stopped(s3_folder, rooms):
    copy(rooms, s3_folder)
    store.remove(store.join(s3_folder, "index.json"))
    store.remove(store.join(s3_folder, "shard-000001.tar"))
    where = store.join(s3_folder, "shard-000002.tar")
    store.write_bytes(where, bytes(len(store.read_bytes(where))))
    with pytest.raises(ShardsError, match=r"already holds shard-000002\.tar, .*give --overwrite"):
        copy(rooms, s3_folder, threads=1)
    store.remove(store.join(s3_folder, "shard-000001.tar"))
    copied = copy(rooms, s3_folder, overwrite=True)
    assert (copied.shards, copied.kept) == (2, 1)
    assert same(rooms, s3_folder)
    again = copy(rooms, s3_folder, fast=True)
    assert (again.shards, again.bytes, again.kept) == (0, 0, 3)


def test_a_copy_does_not_replace_another_dataset_unasked(s3_folder, rooms):
    build(Rooms(150, 16), s3_folder, **SETTINGS, workers=1)
    with pytest.raises(ShardsError, match=r"already holds another dataset; choose .* --overwrite it$"):
        copy(rooms, s3_folder)
    copy(rooms, s3_folder, overwrite=True)
    assert same(rooms, s3_folder)


def test_a_damaged_dataset_is_not_copied(s3_folder, rooms):
    copy(rooms, s3_folder)
    where = store.join(s3_folder, "shard-000001.tar")
    store.write_bytes(where, bytes(10))
    with pytest.raises(ShardsError, match=r"shard-000001\.tar is not what index\.json says; run: .* verify"):
        copy(s3_folder, f"{s3_folder}-copy")
    assert not store.exists(f"{s3_folder}-copy/index.json")
    with pytest.raises(ShardsError, match="are the same place"):
        copy(s3_folder, f"{s3_folder}/")
    with pytest.raises(ShardsError, match="threads=0 copies nothing"):
        copy(s3_folder, "x", threads=0)


def test_a_missing_bucket_is_named_in_one_line(s3_folder, rooms):
    told = r"cannot write s3://no-such-bucket/x.*: there is no bucket no-such-bucket; make it, or name anoth"
    for act in (
        lambda: store.write_bytes("s3://no-such-bucket/x", b"1"),
        lambda: store.make_folder("s3://no-such-bucket/x"),
        lambda: copy(rooms, "s3://no-such-bucket/x"),
    ):
        with pytest.raises(MissingError, match=told):
            act()
    with pytest.raises(MissingError, match="it is not there"):
        store.read_bytes("s3://no-such-bucket/x")


def test_a_wrong_secret_is_one_line_at_once_and_stays_secret(object_store, s3_folder, monkeypatch):
    if object_store.kind == "moto":
        pytest.skip("moto takes any secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-wrong-wrong")
    store.forget_connections()
    began = time.monotonic()
    for act in (
        lambda: store.read_bytes(f"{s3_folder}/a"),
        lambda: store.write_bytes(f"{s3_folder}/a", b"1"),
        lambda: store.sizes(s3_folder),
        lambda: indexes.load(s3_folder),
    ):
        with pytest.raises(StoreError) as raised:
            act()
        assert "\n" not in str(raised.value)
        assert "wrong-wrong" not in str(raised.value)
        assert object_store.key not in str(raised.value)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_server_that_is_not_there_is_one_line_in_bounded_time(s3_folder, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setattr(store, "LIMITS", Limits(tries=3, first_wait_seconds=0.1))
    store.forget_connections()
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"^cannot read s3://.*connect.*\(tried 3 times in \d\.\d s\)$"):
        store.read_bytes(f"{s3_folder}/a")
    assert time.monotonic() - began < 120


def test_no_credentials_are_one_line(s3_folder, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store.forget_connections()
    with pytest.raises(StoreError, match=r"^cannot read s3://.*: Unable to locate credentials$"):
        store.read_bytes(f"{s3_folder}/a")


FORK = """
import os, sys
from shards.storage import store
url = sys.argv[1]
store.write_bytes(url, b"parent")
child = os.fork()
if not child:
    assert store.read_bytes(url) == b"parent"
    store.write_bytes(url, b"child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert store.read_bytes(url) == b"child"
"""


def test_a_forked_child_has_connections_of_its_own(s3_folder):
    command = [sys.executable, "-W", "ignore", "-c", FORK, f"{s3_folder}/a"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
