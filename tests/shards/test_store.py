"""Promises of storage: whole or absent, exact ranges, one line when it fails."""

import errno
import threading
from pathlib import Path

import fsspec
import pytest

from shards import local, store
from shards.errors import MissingError, StoreError


@pytest.fixture(params=["plain", "file", "memory"])
def folder(request, tmp_path):
    if request.param == "memory":
        url = f"memory://{tmp_path.name}"
        yield url
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
        return
    yield str(tmp_path / "d") if request.param == "plain" else f"file://{tmp_path}/d"


def test_every_kind_of_url_keeps_the_same_promises(folder):
    store.make_folder(folder)
    where = store.join(folder, "a.bin")
    assert not store.exists(where)
    store.write_bytes(where, b"0123456789")
    assert store.exists(where)
    assert store.exists(folder)
    assert store.read_bytes(where) == b"0123456789"
    assert store.read_range(where, 2, 5) == b"234"
    assert store.read_range(where, 10, 10) == b""
    store.write_bytes(where, b"new")
    assert store.read_range(where, 0, 3) == b"new"
    store.write_bytes(store.join(folder, "A.bin"), b"")
    assert store.sizes(folder) == {"A.bin": 0, "a.bin": 3}
    store.remove(where)
    store.remove(where)
    assert store.sizes(folder) == {"A.bin": 0}
    with pytest.raises(MissingError, match=r"cannot read .*a\.bin: it is not there"):
        store.read_bytes(where)


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (8, 12), (20, 30)])
def test_a_short_read_is_an_error_and_never_short_bytes(folder, start, stop, monkeypatch):
    monkeypatch.setattr(store, "BACKOFF_SECONDS", 0)
    store.make_folder(folder)
    where = store.join(folder, "a.bin")
    store.write_bytes(where, b"0123456789")
    with pytest.raises(StoreError, match=rf"cannot read bytes {start} to {stop} of .*a\.bin: "):
        store.read_range(where, start, stop)


def test_a_missing_folder_is_told_from_an_empty_one(tmp_path):
    assert store.sizes(str(tmp_path)) == {}
    with pytest.raises(MissingError, match="it is not there"):
        store.sizes(str(tmp_path / "no"))


def test_a_folder_in_a_folder_is_no_file(tmp_path):
    (tmp_path / "sub").mkdir()
    assert store.sizes(str(tmp_path)) == {}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    where = tmp_path / "a.bin"
    store.write_bytes(str(where), b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((local.os, "fsync") if step == "fsync" else (Path, "replace")), full)
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device"):
        store.write_bytes(str(where), b"new and longer")
    assert where.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [where]


def test_a_remote_read_is_tried_again_and_then_told_in_one_line(monkeypatch):
    tries = []

    class Flaky:
        def cat_file(self, path, start, end):
            tries.append(path)
            if len(tries) < 3:
                raise ConnectionResetError("reset\nby peer")
            return b"x" * (end - start)

    monkeypatch.setattr(store, "BACKOFF_SECONDS", 0)
    monkeypatch.setattr(store, "_remote", lambda url: (Flaky(), "p"))
    assert store.read_range("s3://b/p", 3, 7) == b"xxxx"
    assert len(tries) == 3
    tries[:] = [None] * -10
    monkeypatch.setattr(store, "TRIES", 2)
    with pytest.raises(StoreError, match=r"^cannot read bytes 3 to 7 of s3://b/p: reset by peer$"):
        store.read_range("s3://b/p", 3, 7)


def test_our_own_mistakes_are_not_passed_off_as_storage_errors(monkeypatch):
    def wrong(url):
        raise TypeError("ours")

    monkeypatch.setattr(store, "_remote", wrong)
    with pytest.raises(TypeError, match="ours"):
        store.read_bytes("s3://b/p")


def test_an_unknown_kind_of_url_is_one_line():
    with pytest.raises(StoreError, match="nosuch:// is no kind of storage fsspec knows"):
        store.read_bytes("nosuch://a/b")


def test_a_kind_of_url_without_its_package_names_the_extra(monkeypatch):
    def absent(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(StoreError, match=r"pip install 'dcgan_dist\[s3\]'"):
        store.read_bytes("s3://a/b")


def test_many_threads_read_more_files_than_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_FILES", local._Files(2))
    for number in range(8):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 1000)
    wrong = []

    def read():
        for turn in range(200):
            number = turn * 5 % 8
            if store.read_range(str(tmp_path / str(number)), 10, 20) != bytes([number]) * 10:
                wrong.append(number)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("url", "joined"),
    [("a", "a/b"), ("/a/", "/a/b"), ("/", "/b"), ("memory://", "memory://b"), ("s3://k/p", "s3://k/p/b")],
)
def test_names_are_joined_with_one_slash(url, joined):
    assert store.join(url, "b") == joined


@pytest.mark.parametrize(
    ("url", "here"), [("a/b", True), ("/a", True), ("file:///a", True), ("s3://a", False)]
)
def test_paths_and_file_urls_are_local(url, here):
    assert store.is_local(url) is here
