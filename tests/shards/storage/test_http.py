"""A dataset behind a plain web server, read as any other."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcgan_dist.train import main
from shards.dataset.verify import verify
from shards.storage import store
from tests.test_promises import losses, words

web = pytest.importorskip("aiohttp.web", reason="pip install -e '.[s3]' brings aiohttp")


@pytest.fixture
def site(rooms16: str) -> Iterator[str]:
    """The URL of the drawn rooms on a server that lists folders and answers ranges."""
    started = threading.Event()
    found: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = []

    async def serve() -> None:
        app = web.Application()
        app.router.add_static("/set", rooms16, show_index=True)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stop = asyncio.Event()
        found.append((asyncio.get_running_loop(), stop, runner.addresses[0][1]))
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(10)
    loop, stop, port = found[0]
    yield f"http://127.0.0.1:{port}/set"
    store.forget_connections()
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


def test_training_over_http_is_training_from_the_folder(rooms16: str, site: str, tmp_path: Path) -> None:
    assert set(store.sizes(site)) == set(store.sizes(rooms16))
    assert list(verify(site)) == []
    for name, url in (("folder", rooms16), ("http", site)):
        assert main([*words(url, tmp_path / name), "--train.steps=5"]) == 0
    assert losses(tmp_path / "http") == losses(tmp_path / "folder")
