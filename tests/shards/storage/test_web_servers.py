"""Web servers of others: no body fills the memory, whatever is sent for whatever was asked."""

import gzip
import http.server
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import ClassVar

import pytest

pytest.importorskip("aiohttp", reason="the extra s3 brings aiohttp")

from shards.building.build import build
from shards.dataset.index import INDEX_NAME, load
from shards.errors import DamagedError, ShardsError, StoreError
from shards.sources.drawn.rooms import Rooms
from shards.storage import http as answers
from shards.storage import store
from shards.storage.retries import Limits

MEGABYTE = 2**20


class Server(http.server.BaseHTTPRequestHandler):
    """Answers that never end, or are compressed, by the path that is asked for."""

    asked: ClassVar[list[str | None]] = []

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, *, head):
        self.asked.append(self.headers.get("Accept-Encoding"))
        kind = self.path.strip("/").split("/")[0]
        body = gzip.compress(bytes(8 * MEGABYTE)) if kind == "packed" else b""
        self.send_response(404 if kind == "gone" else 200)
        if kind == "packed":
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
        elif kind == "told":
            self.send_header("Content-Length", str(10**12))
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if head:
            return
        try:
            self.wfile.write(body)
            while kind != "packed":
                self.wfile.write(b"x" * 65536)
        except OSError:
            pass

    def log_message(self, *args):
        pass


@contextmanager
def serving():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        store.forget_connections()
        server.shutdown()
        thread.join(10)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(store, "LIMITS", Limits(tries=1, read_seconds=20))
    store.forget_connections()
    with serving() as url:
        yield url


def test_nothing_is_unpacked(site):
    data = store.read_bytes(f"{site}/packed/file")
    assert len(data) < MEGABYTE
    assert gzip.decompress(data) == bytes(8 * MEGABYTE)
    assert set(Server.asked) == {"identity"}


def test_a_range_is_never_longer_than_was_asked(site):
    with pytest.raises(StoreError, match="got 1001 bytes, not 1000; this server gives no byte ranges"):
        store.read_range(f"{site}/endless/file", 0, 1000)


def test_a_file_of_unknown_length_has_a_limit(site, monkeypatch):
    monkeypatch.setattr(answers, "WHOLE_BYTES", MEGABYTE)
    with pytest.raises(StoreError, match="the server sends over 1048576 bytes and does not say how many"):
        store.read_bytes(f"{site}/endless/file")


def test_the_page_of_a_folder_has_a_limit(site, monkeypatch):
    monkeypatch.setattr(answers, "LISTING_BYTES", MEGABYTE)
    with pytest.raises(StoreError, match="the page of this folder has over 1048576 bytes"):
        store.sizes(f"{site}/endless")


def test_a_refusal_is_not_read_to_its_end(site):
    with pytest.raises(StoreError, match="it is not there"):
        store.read_range(f"{site}/gone/file", 0, 1000)


def test_a_file_that_is_told_to_be_enormous_is_not_asked_for(site):
    with pytest.raises(DamagedError, match="it has over 67108864 bytes, which such a file cannot have"):
        store.read_bytes(f"{site}/told/file", limit_bytes=store.SMALL_BYTES)
    with pytest.raises(ShardsError, match=r"index\.json"):
        load(f"{site}/told")


SMALL_MEMORY = """
import resource, sys
from shards.dataset.index import load
resource.setrlimit(resource.RLIMIT_DATA, (1_000_000_000, 1_000_000_000))
try:
    load(sys.argv[1])
except ValueError as error:
    print("told:", error)
"""


def test_an_endless_index_is_one_line_within_little_memory(site):
    done = subprocess.run(
        [sys.executable, "-c", SMALL_MEMORY, f"{site}/endless"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.startswith("told: "), done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_an_index_on_disk_that_has_no_end_is_not_read_to_it(tmp_path, monkeypatch):
    build(Rooms(8, 16), str(tmp_path), size=16, workers=1)
    (tmp_path / "blocks.npy").unlink()
    (tmp_path / "blocks.npy").symlink_to("/dev/zero")
    from shards.dataset.index import load_blocks

    index = load(str(tmp_path))
    with pytest.raises(ShardsError, match=r"blocks\.npy"):
        load_blocks(str(tmp_path), index)
    monkeypatch.setattr(store, "SMALL_BYTES", MEGABYTE)
    (tmp_path / INDEX_NAME).unlink()
    (tmp_path / INDEX_NAME).symlink_to("/dev/zero")
    with pytest.raises(ShardsError, match=r"index\.json"):
        load(str(tmp_path))
