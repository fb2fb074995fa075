"""A run's TensorBoard, opened as a person would: a real browser shows its curves and pictures."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dcgan_dist.train import main
from tests.test_promises import words

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")

pytestmark = pytest.mark.slow


@contextmanager
def tensorboard(logs: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows `logs`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1"]
    server = subprocess.Popen(
        [*program, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def ask(url: str, *, until: float = 60) -> Any:
    """The answer to a request, once there is one that is not empty."""
    end = time.monotonic() + until
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                found = json.load(reply)
                if found or time.monotonic() > end:
                    return found
        except OSError:
            assert time.monotonic() < end, f"no answer from {url}"
        time.sleep(0.5)


def browse(url: str, profile: Path, *options: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", "--virtual-time-budget=30000", *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def test_a_browser_shows_curves_and_pictures(rooms16: str, tmp_path: Path) -> None:
    assert main(words(rooms16, tmp_path / "run")) == 0
    with tensorboard(tmp_path / "run") as url:
        scalars = ask(f"{url}/data/plugin/scalars/tags")["tensorboard"]
        for tag in (
            "loss/d",
            "loss/g",
            "d/real",
            "d/fake_before",
            "d/fake_after",
            "gradient/d",
            "gradient/g",
        ):
            assert tag in scalars
        assert {"speed/images_per_second", "speed/step_seconds", "speed/data_wait_share"} <= scalars.keys()
        assert ask(f"{url}/data/plugin/images/tags")["tensorboard"].keys() == {"real", "samples"}
        charts = ask(f"{url}/data/plugin/custom_scalars/layout")["category"][0]["chart"]
        assert charts[0]["multiline"]["tag"] == ["loss/d", "loss/g"]
        if CHROMIUM is None:
            pytest.skip("the server's answers hold; no Chromium here to open the page")
        page = browse(f"{url}/#timeseries", tmp_path / "profile", "--dump-dom")
        assert "fake_after" in page
        assert "Custom Scalars".lower() in page.lower()
        shot = tmp_path / "page.png"
        browse(
            f"{url}/#custom_scalars", tmp_path / "profile2", "--window-size=1400,900", f"--screenshot={shot}"
        )
        with Image.open(shot) as picture:
            colours = picture.convert("RGB").getcolors(2**24)
            assert colours is not None
            assert len(colours) > 300, "the page is blank"
