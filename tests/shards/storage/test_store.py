"""Promises of storage: whole or absent, exact ranges, one line when it fails."""

import errno
import threading
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from shards.errors import MissingError, StoreError
from shards.storage import local, retries, store
from shards.storage.remote import FileSystem
from shards.storage.retries import Limits


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
def test_a_short_read_is_an_error_and_never_short_bytes(folder, start, stop):
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


class Scripted:
    """A file system that does what it is told, once each: an exception is raised, bytes are the answer."""

    def __init__(self, *script):
        self.script, self.calls = list(script), []

    def invalidate_cache(self):
        pass

    def cat_file(self, path, start=None, end=None):
        return self._next("cat_file")

    def info(self, path):
        return self._next("info")

    def ls(self, path, detail):
        return self._next("ls")

    def pipe_file(self, path, data, **settings):
        self.calls.append("pipe_file")
        time.sleep(5)

    def _next(self, name):
        self.calls.append(name)
        done = self.script.pop(0)
        if isinstance(done, Exception):
            raise done
        return done


@pytest.fixture
def scripted(monkeypatch):
    def use(*script, **limits):
        fs = Scripted(*script)
        calm = replace(Limits(first_wait_seconds=0.001), **limits)
        monkeypatch.setattr(store, "LIMITS", calm)
        found = (FileSystem("s3", fs), "b/p")
        monkeypatch.setattr("shards.storage.remote.find", lambda url, limits, in_parts=False: found)
        return fs

    return use


def test_a_remote_read_is_tried_again_and_then_told_in_one_line(scripted):
    reset = ConnectionResetError("reset\nby peer")
    before = store.counters.snapshot()
    scripted(reset, reset, b"xxxx")
    assert store.read_range("s3://b/p", 3, 7) == b"xxxx"
    counted = store.counters.snapshot() - before
    assert (counted.requests, counted.retries, counted.failures, counted.read_bytes) == (3, 2, 0, 4)
    scripted(reset, reset, tries=2)
    told = r"^cannot read bytes 3 to 7 of s3://b/p: reset by peer \(tried 2 times in 0\.0 s\)$"
    with pytest.raises(StoreError, match=told):
        store.read_range("s3://b/p", 3, 7)
    assert (store.counters.snapshot() - before).failures == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError("Access Denied"), "Access Denied"),
        (NotADirectoryError("no folder"), "no folder"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_what_another_try_does_not_mend_is_told_at_once(scripted, monkeypatch, error, told):
    monkeypatch.setattr(retries, "CLIENTS", {*retries.CLIENTS, "tests"})
    fs = scripted(error, b"xxxx")
    with pytest.raises(StoreError, match=rf"^cannot read bytes 3 to 7 of s3://b/p: {told}$"):
        store.read_range("s3://b/p", 3, 7)
    assert fs.calls == ["cat_file"]


def test_a_request_that_was_long_on_its_way_is_sent_again(scripted):
    late = PermissionError("The difference between the request time and the server's time is too large")
    late.__cause__ = OSError()
    late.__cause__.response = {"Error": {"Code": "RequestTimeTooSkewed"}}
    scripted(late, b"xxxx")
    assert store.read_range("s3://b/p", 3, 7) == b"xxxx"


def test_a_lost_connection_is_not_taken_for_a_missing_file(scripted):
    lost = FileNotFoundError("http://h/p")
    lost.__cause__ = ConnectionRefusedError(111, "Connection refused")
    scripted(lost, lost, tries=2)
    with pytest.raises(StoreError, match="Connection refused") as raised:
        store.exists("s3://b/p")
    assert not isinstance(raised.value, MissingError)


def test_an_error_that_a_client_leaks_is_storage_and_the_same_from_us_is_not(scripted, monkeypatch):
    scripted(IndexError("tuple index out of range"))
    with pytest.raises(IndexError):
        store.read_range("s3://b/p", 3, 7)
    monkeypatch.setattr(retries, "CLIENTS", {*retries.CLIENTS, "tests"})
    scripted(IndexError("tuple index out of range"), tries=1)
    with pytest.raises(StoreError, match="tuple index out of range"):
        store.read_range("s3://b/p", 3, 7)


def test_a_call_that_never_returns_ends_in_time(scripted):
    scripted(tries=2, connect_seconds=0.05, read_seconds=0.05, budget_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"^cannot write s3://b/p: no answer in 0 s \(tried 2 times in"):
        store.write_bytes("s3://b/p", b"x")
    assert time.monotonic() - began < 30


def test_the_budget_ends_the_tries_before_their_number_does(scripted):
    fs = scripted(*[ConnectionResetError("reset")] * 50, tries=50, first_wait_seconds=0.1, budget_seconds=0.5)
    with pytest.raises(StoreError, match=r"tried \d times"):
        store.read_range("s3://b/p", 3, 7)
    assert 2 <= len(fs.calls) <= 5


def test_bytes_that_fail_their_check_are_read_again(scripted):
    scripted(b"xxyx", b"xxxx")
    assert store.read_range("s3://b/p", 3, 7, check=b"xxxx".__eq__) == b"xxxx"
    scripted(b"xxyx", b"xxyx", tries=2)
    with pytest.raises(StoreError, match="do not match their checksum"):
        store.read_range("s3://b/p", 3, 7, check=b"xxxx".__eq__)


def test_a_whole_file_that_comes_short_or_grows_is_read_again(scripted):
    scripted({"size": 4}, b"xxx", {"size": 4}, b"xxxxx", {"size": 6}, b"xxxxxx")
    assert store.read_bytes("s3://b/p") == b"xxxxxx"
    scripted({"size": 4}, b"xxx", {"size": 4}, b"xxx", tries=2)
    with pytest.raises(StoreError, match="its length is never what the storage says"):
        store.read_bytes("s3://b/p")


def test_a_large_file_that_changes_between_its_pieces_is_read_again(scripted, monkeypatch):
    monkeypatch.setattr(store, "PIECE_BYTES", 3)
    old, new = {"size": 5, "ETag": "old"}, {"size": 4, "ETag": "new"}
    scripted(old, b"ooo", b"oo", new, new, b"nnn", b"n", new)
    assert store.read_bytes("s3://b/p") == b"nnnn"
    scripted(old, b"ooo", b"n", new, new, new, b"nnn", b"n", new)
    assert store.read_bytes("s3://b/p") == b"nnnn"


def test_a_server_without_byte_ranges_is_told_at_once(scripted):
    fs = scripted(b"all of it")
    with pytest.raises(StoreError, match=r": got 9 bytes, not 4; this server gives no byte ranges$"):
        store.read_range("http://b/p", 3, 7)
    assert fs.calls == ["cat_file"]


def test_a_web_server_that_tells_no_length_is_read(scripted):
    scripted({"size": None}, b"xx")
    assert store.read_bytes("http://b/p") == b"xx"


def test_a_folder_is_not_read_as_a_file(folder):
    store.make_folder(folder)
    store.write_bytes(store.join(folder, "a"), b"1")
    with pytest.raises(StoreError, match=r"(?i)directory|folder"):
        store.read_bytes(folder)


SECRETS = ["AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG", "p4ssw0rd", "F00BA4", "1234abcd%3D", "p4ss"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://joe:p4ssw0rd@host/a", "https://***@host/a"),
        ("https://p4ssw0rd@host/a?x=1", "https://***@host/a?x=1"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        ("http://joe:p4ss/w@rd@host/a", "http://***@host/a"),
        ("http://joe:p4ss?w#rd@host/a", "http://***@host/a"),
        ("http://joe:p4ss w0rd@host/a", "http://***@host/a"),
        ("abfss://box:p4ssw0rd@account.dfs.core.windows.net/a", "abfss://***@account.dfs.core.windows.net/a"),
        ("simplecache::http://joe:p4ssw0rd@host/a, x", "simplecache::http://***@host/a, x"),
        ("https://h/a#access_token=F00BA4", "https://h/a#access_token=***"),
        ("https://h/a?code=F00BA4&jwt=F00BA4&any=F00BA4", "https://h/a?code=***&jwt=***&any=***"),
        ("a=b;SharedAccessSignature=sv=2020&sig=1234abcd%3D", "a=b;SharedAccessSignature=***"),
        ("/a?code=F00BA4", "/a?code=***"),
        ("http://localhost:9000/a.tar: no", "http://localhost:9000/a.tar: no"),
        ("https://h/a?se=9&sig=1234abcd%3D&x=1", "https://h/a?se=9&sig=***&x=1"),
        ("https://h/a?token=F00BA4", "https://h/a?token=***"),
        (
            "https://h/a?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F1&X-Amz-Signature=F00BA4&X-Amz-Date=1",
            "https://h/a?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Date=***",
        ),
        ("https://h/a?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&n=1", "https://h/a?AWSAccessKeyId=***&n=1"),
        ("The key AKIAIOSFODNN7EXAMPLE is not known", "The key *** is not known"),
        ("aws_secret_access_key='wJalrXUtnFEMI/K7MDENG' x", "aws_secret_access_key='***' x"),
        ("Authorization: AWS4 Credential=F00BA4, Signature=F00BA4", "Authorization: ***"),
        ("the environment says wJalrXUtnFEMI/K7MDENG.", "the environment says ***."),
        (
            "cannot read s3://b/key=3/a.tar: it is not there",
            "cannot read s3://b/key=3/a.tar: it is not there",
        ),
    ],
)
def test_no_message_holds_a_secret(monkeypatch, said, shown):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    assert str(StoreError(said)) == shown
    assert not any(secret in shown for secret in SECRETS)


def test_a_signed_url_is_told_without_its_signature(scripted):
    scripted(FileNotFoundError())
    with pytest.raises(MissingError, match=r"^cannot read https://h/a\?sig=\*\*\*: it is not"):
        store.read_bytes("https://h/a?sig=1234abcd%3D")


def test_our_own_mistakes_are_not_passed_off_as_storage_errors(monkeypatch):
    def wrong(url, in_parts=False):
        raise TypeError("ours")

    monkeypatch.setattr(store, "_remote", wrong)
    with pytest.raises(TypeError, match="ours"):
        store.read_bytes("s3://b/p")


def test_an_unknown_kind_of_url_is_one_line():
    with pytest.raises(StoreError, match="nosuch:// is no kind of storage fsspec knows"):
        store.read_bytes("nosuch://a/b")


def test_a_kind_of_url_without_its_package_names_the_extra(monkeypatch):
    def absent(protocol):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(StoreError, match=r"pip install -c constraints\.txt -e '\.\[s3\]'"):
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


def test_a_password_is_hidden_where_a_library_quotes_it_alone():
    url = "s3://ALICE:opensesame%2F1@bucket/a"
    assert "opensesame" not in str(StoreError(f'cannot read {url}: no bucket "ALICE:opensesame%2F1@bucket"'))
    assert str(StoreError('no bucket "ALICE:opensesame/1"')) == 'no bucket "ALICE:***"'
