"""Promises of the sources: rooms are a specification, digits are real, folders are read in order."""

import hashlib
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from shards.errors import ImageError, ShardsError
from shards.sources.drawn.drawing import Dice
from shards.sources.drawn.rooms import SKY, Rooms
from shards.sources.own.folder import Folder
from shards.sources.published.digits import Digits
from shards.tars.records import meta_json

GOLDEN_PIXELS = [
    "efa18e2c41cffcfb535e9721696540f56ec8e8908bc132e27b2a80213d9e049f",
    "1a8d9d799054efc5200ab5a9f0585f5501ba3a4fdb4d830af54bfd6a64938939",
    "93cd3455ecb22631f42f3c0becdf2f32f9c63349c58287c5f74cc57c82280274",
    "5b9a7b7d4152385f58f6556bc37a5b451e8c2b56f81059231aa415d364a54f9a",
]
"""sha256 of the pixels of rooms 0 to 3 of seed 0 at 64 pixels."""


def test_the_dice_are_a_specification():
    dice = Dice(1, 2)
    assert [dice.roll() for _ in range(3)] == [0.39654996185185243, 0.31435902473721977, 0.5388255035259495]


@pytest.mark.parametrize("position", range(4))
def test_rooms_are_a_specification(position):
    pixels = Rooms(4, 64).item(position).image
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == GOLDEN_PIXELS[position]


def test_a_room_depends_on_seed_and_position_alone():
    rooms = Rooms(100, 32, seed=7)
    later = rooms.item(5)
    rooms.item(50)
    again = pickle.loads(pickle.dumps(rooms)).item(5)
    np.testing.assert_array_equal(again.image, later.image)
    assert again.meta == later.meta
    assert Rooms(100, 32, seed=8).item(5).meta != later.meta
    assert rooms.item(6).meta != later.meta


@pytest.mark.parametrize("size", [16, 33, 128])
def test_a_room_is_the_same_scene_at_every_size(size):
    for position in range(10):
        small, large = Rooms(10, size).item(position), Rooms(10, 256).item(position)
        assert small.meta == large.meta
        shrunk = np.asarray(Image.fromarray(large.image).resize((size, size), Image.Resampling.BOX))
        assert np.abs(small.image.astype(int) - shrunk).mean() < 6


def test_rooms_differ_and_attributes_are_near_their_rates():
    items = [Rooms(400, 16).item(position) for position in range(400)]
    assert len({item.image.tobytes() for item in items}) == 400
    rates = {
        name: np.mean([name in item.meta["boxes"] for item in items])
        for name in ("bed", "window", "lamp", "picture", "rug")
    }
    assert rates["bed"] == 1
    assert all(0.4 < rates[name] < 0.7 for name in ("window", "lamp", "picture", "rug"))
    bright = np.array([item.meta["bright"] for item in items])
    window = np.array(["window" in item.meta["boxes"] for item in items])
    assert 0.4 < bright.mean() < 0.6
    assert abs(window[bright].mean() - window[~bright].mean()) < 0.15


def test_bright_rooms_have_brighter_walls():
    metas = [Rooms(200, 8).item(position).meta for position in range(200)]
    assert min(max(meta["wall"]) for meta in metas if meta["bright"]) > 180
    assert max(max(meta["wall"]) for meta in metas if not meta["bright"]) < 120


def test_nothing_but_a_window_has_the_colour_of_the_sky():
    sky = np.array(SKY) * 255
    for position in range(300):
        item = Rooms(300, 64).item(position)
        like_sky = (np.abs(item.image - sky) < 25).all(axis=2)
        if "window" in item.meta["boxes"]:
            x0, y0, x1, y1 = (np.array(item.meta["boxes"]["window"]) * 64).round().astype(int)
            assert like_sky[y0:y1, x0:x1].sum() > 20
            like_sky[y0 : y1 + 1, x0 : x1 + 1] = False
        assert not like_sky.any()


def test_boxes_lie_in_the_picture_and_rooms_keep_their_promise_of_json_bytes():
    rooms = Rooms(10**9, 8, seed=2**63 - 1)
    for position in range(10**9 - 200, 10**9):
        item = rooms.item(position)
        for x0, y0, x1, y1 in item.meta["boxes"].values():
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
        assert len(meta_json(item.meta | {"name": item.name})) <= rooms.meta_bytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"images": 0}, "images=0 draws nothing"), ({"images": 1, "seed": -1}, "seed=-1 is outside")],
)
def test_a_wrong_setting_of_rooms_is_one_line(settings, message):
    with pytest.raises(ShardsError, match=message):
        Rooms(**settings, size=8)


def test_digits_are_the_real_ones():
    digits = Digits()
    assert digits.samples == 1797
    assert digits.classes == tuple("0123456789")
    item = digits.item(0)
    assert (item.label, item.image.shape, item.image.max()) == (0, (8, 8, 3), 239)
    assert sorted({digits.item(position).label for position in range(100)}) == list(range(10))


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ShardsError, match=r"pip install -c constraints\.txt -e '\.\[digits\]'"):
        Digits()


def touch(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_a_folder_is_sorted_and_its_first_folders_are_the_classes(tmp_path):
    for name in (
        "dog/b.PNG",
        "cat/sub/z.jpg",
        "cat/a.webp",
        "top.gif",
        ".hidden.png",
        ".git/x.png",
        "cat/n.txt",
    ):
        touch(tmp_path / name, name.encode())
    (tmp_path / "cat" / "loop").symlink_to(tmp_path, target_is_directory=True)
    folder = Folder(str(tmp_path))
    items = [folder.item(position) for position in range(folder.samples)]
    assert [item.name for item in items] == ["cat/a.webp", "cat/sub/z.jpg", "dog/b.PNG", "top.gif"]
    assert [item.label for item in items] == [0, 0, 1, None]
    assert folder.classes == ("cat", "dog")
    assert items[0].image == b"cat/a.webp"


def test_a_folder_is_told_from_another_by_names_and_lengths_not_by_place(tmp_path):
    for place in ("one", "two", "three"):
        touch(tmp_path / place / "a.png", b"x" * (4 if place == "three" else 3))
    one, two, three = (Folder(str(tmp_path / place)).settings() for place in ("one", "two", "three"))
    assert one == two != three


def test_a_folder_without_pictures_is_one_line(tmp_path):
    with pytest.raises(ShardsError, match=r"holds no pictures .*; give the folder that holds them"):
        Folder(str(tmp_path))
    with pytest.raises(ShardsError, match="is not a folder"):
        Folder(str(tmp_path / "no"))


def test_an_enormous_file_is_not_read(tmp_path, monkeypatch):
    touch(tmp_path / "a.png", b"12345")
    monkeypatch.setattr("shards.sources.own.folder.MAX_FILE_BYTES", 4)
    with pytest.raises(ImageError, match="over 4 bytes"):
        Folder(str(tmp_path)).item(0)
