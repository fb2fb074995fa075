"""Promises of large builds: stopped ones go on, order and resizing as asked, faces found, a sheet drawn."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from shards.__main__ import check_build, main
from shards.building.build import build
from shards.building.cut import Cut
from shards.dataset.describe import read_sample
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.errors import ShardsError, StoreError
from shards.pictures.codec import to_square
from shards.pictures.cv2_resize import to_square_cv2
from shards.sources.drawn.faces import Faces
from shards.sources.drawn.rooms import Rooms
from shards.sources.own.webfaces import Webfaces
from shards.sources.shuffled import Shuffled
from shards.storage import store
from tests.shards.dedup.test_dedup import contents, kill_until_done


class Counting(Rooms):
    """Rooms that count how often they are drawn."""

    drawn = 0

    def item(self, position):
        Counting.drawn += 1
        return super().item(position)


def stop_at(monkeypatch, name):
    write = store.write_bytes

    def full(where, data):
        if where.endswith(name):
            raise StoreError(f"cannot write {where}: No space left on device")
        write(where, data)

    monkeypatch.setattr(store, "write_bytes", full)


def test_a_stopped_build_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    source, one, two = Counting(20, 8), str(tmp_path / "one"), str(tmp_path / "two")
    build(source, one, size=8, shard_images=4, workers=1)
    stop_at(monkeypatch, "shard-000003.tar")
    with pytest.raises(StoreError):
        build(source, two, size=8, shard_images=4, workers=1)
    monkeypatch.undo()
    Counting.drawn = 0
    build(source, two, size=8, shard_images=4, workers=1)
    assert Counting.drawn == 8
    assert contents(two) == contents(one)


def test_marks_of_another_build_or_without_their_shard_are_not_believed(tmp_path, monkeypatch):
    url, again = str(tmp_path / "set"), str(tmp_path / "again")
    stop_at(monkeypatch, "index.json")
    with pytest.raises(StoreError):
        build(Rooms(12, 8), url, size=8, shard_images=4, workers=1)
    monkeypatch.undo()
    (Path(url) / "shard-000000.tar").write_bytes(b"short")
    (Path(url) / "shard-000001.done.json").write_text("{")
    for seed in (1, 0):
        build(Rooms(12, 8, seed=seed), url, size=8, shard_images=4, workers=1, overwrite=seed == 0)
        build(Rooms(12, 8, seed=seed), again, size=8, shard_images=4, workers=1, overwrite=True)
        assert contents(url) == contents(again)


BUILD = ["-m", "shards", "build", "rooms"]
SETTINGS = ["--images", "3000", "--size", "32", "--shard-images", "60", "--workers", "2"]


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.long)])
def test_a_killed_build_ends_where_the_unbroken_one_ends(tmp_path, kills):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert main([*BUILD[2:], one, *SETTINGS]) == 0
    kill_until_done([*BUILD, two, *SETTINGS], kills, lambda: shutil.rmtree(two))
    found = {name: data for name, data in contents(two).items() if not name.endswith(".tmp")}
    assert found == contents(one)


def test_what_a_build_killed_at_its_very_end_left_is_swept(tmp_path, capsys):
    command = [*BUILD[2:], str(tmp_path), "--images", "12", "--size", "8", "--workers", "1"]
    assert main(command) == 0
    whole = contents(tmp_path)
    left = (
        "build.begun.json",
        "shard-000000.done.json",
        "part-000001-of-000002.json",
        ".shard-000000.tar.77.0a1b2c3d.tmp",
    )
    for words in ([], ["--merge", "2"], ["--part", "1/2"]):
        for name in left:
            (tmp_path / name).write_bytes(b"{")
        check_build(command[1:])  # before a job, which looks and changes nothing
        assert contents(tmp_path).keys() == {*whole, *left}
        assert main([*command, *words]) == 0
        assert contents(tmp_path) == whole
    assert "already built: 12 images" in capsys.readouterr().out


def test_the_workers_of_a_killed_build_leave(tmp_path):
    slow = [
        sys.executable,
        *BUILD,
        str(tmp_path / "out"),
        "--images",
        "100000",
        "--size",
        "64",
        "--workers",
        "2",
    ]
    with subprocess.Popen([*slow, "--shard-images", "50"], start_new_session=True) as build:
        while len(family := _processes_of(build.pid)) < 3 or not list(tmp_path.glob("out/*.tar")):
            time.sleep(0.05)
        build.kill()
    deadline = time.monotonic() + 20
    while _processes_of(build.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(family) >= 3
    assert _processes_of(build.pid) == []


def _processes_of(session: int) -> list[int]:
    """Processes of a session that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(path.parent.name))
    return found


def test_a_build_leaves_a_report_and_a_sheet_to_look_at(tmp_path, capsys):
    top, out = tmp_path / "in", str(tmp_path / "out")
    top.mkdir()
    for number in range(12):
        Image.fromarray(Rooms(12, 16).item(number).image).save(top / f"{number:02d}.png")
    (top / "bad.png").write_bytes(b"hello")
    command = ["build", "folder", str(top), out, "--size", "16", "--workers", "1"]
    assert main(command) == 0
    report = json.loads(store.read_bytes(f"{out}/report.json"))
    assert (report["images"], report["failures_by_reason"]) == (12, {"not a picture": 1})
    assert report["bytes"] == load(out).bytes
    sheet = np.asarray(Image.open(io.BytesIO(store.read_bytes(f"{out}/sheet.png"))))
    assert sheet.shape == (32, 160, 3)
    np.testing.assert_array_equal(sheet[:16, 16:32], Rooms(12, 16).item(1).image)
    np.testing.assert_array_equal(sheet[16:, 16:32], Rooms(12, 16).item(11).image)
    store.remove(f"{out}/sheet.png")
    assert main(command) == 0
    assert "already built" in capsys.readouterr().out
    assert store.exists(f"{out}/sheet.png")


def test_shuffling_is_a_permutation_that_the_seed_decides(tmp_path):
    shuffled = Shuffled(Rooms(500, 8), 3)
    names = [shuffled.item(position).name for position in range(500)]
    assert sorted(names) == sorted(f"room-0-{position}" for position in range(500))
    assert names != [f"room-0-{position}" for position in range(500)]
    assert names[:3] == [Shuffled(Rooms(500, 8), 3).item(position).name for position in range(3)]
    assert names[:3] == ["room-0-210", "room-0-140", "room-0-87"]  # a specification
    assert names[:5] != [Shuffled(Rooms(500, 8), 4).item(position).name for position in range(5)]
    out = str(tmp_path / "out")
    assert main(["build", "rooms", out, "--images", "9", "--size", "8", "--shuffle", "1"]) == 0
    assert load(out).source["shuffle"] == 1
    assert main(["build", "rooms", out, "--images", "9", "--size", "8"]) == 2
    with pytest.raises(ShardsError, match="shuffle=-1 is outside"):
        Shuffled(Rooms(5, 8), -1)


def test_the_authors_resize_is_that_of_cv2(tmp_path):
    picture = np.asarray(Image.effect_noise((90, 60), 80).convert("RGB"))
    wanted = cv2.resize(picture, (24, 16))[:, 4:20]
    np.testing.assert_array_equal(to_square_cv2(picture, 16), wanted)
    np.testing.assert_array_equal(to_square_cv2(wanted, 16), wanted)
    assert np.abs(wanted.astype(int) - to_square(picture, 16)).mean() > 5  # it aliases
    index = build(Rooms(3, 32), str(tmp_path), size=16, resize="cv2_linear", workers=1)
    assert index.source["resize"] == "cv2_linear"
    np.testing.assert_array_equal(
        read_sample(str(tmp_path), index, position=1)[0], to_square_cv2(Rooms(3, 32).item(1).image, 16)
    )
    assert "resize" not in Cut(8, "npy", None, 1, 1).settings()
    with pytest.raises(ShardsError, match="resize='nearest' is not known; choose one of area, cv2_linear"):
        build(Rooms(3, 32), str(tmp_path), size=16, resize="nearest")


def test_without_opencv_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ShardsError, match=r"pip install -c constraints\.txt -e '\.\[webfaces\]'"):
        build(Rooms(3, 32), str(tmp_path), size=16, resize="cv2_linear")


def test_a_few_pictures_are_read_from_anywhere(tmp_path):
    url = str(tmp_path)
    index = build(Rooms(20, 8), url, size=8, shard_images=7, block_samples=3, workers=1)
    for place, picture in Blocks(url, index).at([0, 6, 7, 19]).items():
        np.testing.assert_array_equal(picture, Rooms(20, 8).item(place).image)


@pytest.fixture
def found_faces(monkeypatch):
    """A detector that finds what the test says: the real one finds no drawn faces."""
    boxes = []

    class Detector:
        def detectMultiScale(self, grey, **settings):  # noqa: N802
            assert grey.ndim == 2
            side = settings["minSize"][0]
            return np.array([box for box in boxes if box[2] >= side]).reshape(-1, 4)

    monkeypatch.setattr("shards.sources.own.webfaces._detector", Detector)
    return boxes


def test_each_face_of_a_picture_is_a_sample_with_its_box(tmp_path, found_faces):
    (tmp_path / "in").mkdir()
    picture = np.concatenate([Faces(9, 200).item(number).image for number in (0, 1)], axis=1)
    Image.fromarray(picture).save(tmp_path / "in" / "two.png")
    found_faces += [(210, 10, 150, 150), (20, 30, 128, 128), (0, 0, 40, 40)]
    index = build(Webfaces(str(tmp_path / "in"), 128), str(tmp_path / "out"), size=128, workers=1)
    assert index.samples == 2
    pixels, meta = read_sample(str(tmp_path / "out"), index, position=0)
    assert meta == {"box": [20, 30, 128, 128], "faces": 2, "name": "two.png"}
    np.testing.assert_array_equal(pixels, picture[30:158, 20:148])
    small = Webfaces(str(tmp_path / "in"), 64).item(0)[0].image  # the authors' centre, unscaled
    np.testing.assert_array_equal(small, picture[62:126, 52:116])


def test_pictures_without_a_face_are_counted(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(Rooms(9, 300).item(0).image).save(tmp_path / "in" / "room.png")
    told = []
    with pytest.raises(ShardsError, match="none of the 1 pictures"):
        build(
            Webfaces(str(tmp_path / "in"), 64),
            str(tmp_path / "out"),
            size=64,
            workers=1,
            on_failures=told.extend,
        )
    assert [failure.reason for failure in told] == ["no face"]
    with pytest.raises(ShardsError, match=r"min_face=4 is outside \[20, 4096\]"):
        Webfaces(str(tmp_path / "in"), 64, min_pixels=4)
