"""A newcomer's first run, shortened: real commands, torchrun on two ranks, pictures that come near the real
ones."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from shards.sources.drawn.rooms import Rooms

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


def own_pictures(folder: Path) -> None:
    """1,500 files of mixed sizes, shapes and formats, one of them broken."""
    for i in range(1500):
        side = 40 + i % 90
        image = Rooms(1500, size=side, seed=5).item(i).image
        assert not isinstance(image, bytes)
        picture = Image.fromarray(image).crop((0, 0, side, side - i % 7))
        path = folder / ("even" if i % 2 else "odd") / f"{i}.{'png' if i % 3 else 'JPG'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, "PNG" if i % 3 else "JPEG")
    (folder / "odd" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")


@pytest.mark.parametrize("source", ["rooms", "digits", "folder"])
def test_from_pictures_to_a_generator_that_comes_four_times_nearer(source: str, tmp_path: Path) -> None:
    if source == "folder":
        own_pictures(tmp_path / "own")
    build = {
        "rooms": ["rooms", "set", "--images", "4000"],
        "digits": ["digits", "set"],
        "folder": ["folder", "own", "set"],
    }[source]
    built = command(tmp_path, "-m", "shards", "build", *build, "--size", "32")
    if source == "folder":
        assert "broken.png" in built
    config = ROOT / "configs" / ("digits.yaml" if source == "digits" else "demo.yaml")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dcgan_dist.train", str(config)]
    settings = ["--data.url", "set", "--run.dir", "run", "--train.steps", "1000", "--train.ema_decay", "0.98"]
    told = command(tmp_path, *launcher, *settings)
    assert "done: samples, checkpoints and logs are in run" in told
    assert "rank 1" not in told
    measured = command(tmp_path, "-m", "dcgan_dist.evaluate", "run", "--images", "512")
    trained, floor = map(float, re.findall(r"swd +([\d.]+) +([\d.]+)", measured)[0])
    fresh = float(re.findall(r"swd at step 0 +([\d.]+)", measured)[0])
    assert max(floor, trained) < fresh / 4, measured


def command(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
