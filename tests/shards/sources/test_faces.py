"""Faces: drawn ones are a specification, CelebA's are read exactly with what is known of them."""

import hashlib
import io
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.building.build import build
from shards.dataset.describe import read_sample
from shards.dataset.index import load
from shards.errors import ShardsError
from shards.pictures.codec import decode
from shards.sources.drawn.faces import HAIRS, MAX_YAW, RIM, Faces
from shards.sources.drawn.rooms import Rooms
from shards.sources.published import celeba
from shards.sources.published.celeba import CelebA
from shards.tars.records import meta_json

GOLDEN_PIXELS = [
    "a02895722277ec96dcfcdbd72dedf68f9501b56ed9ec5c10177fc5f5a8a50c86",
    "32790d10c0da8366e17d56e65ccfbe14806be0bc1652830af4d5705b2b2e736b",
]
"""sha256 of the pixels of faces 0 and 1 of seed 0 at 64 pixels."""


@pytest.mark.parametrize("position", range(2))
def test_faces_are_a_specification(position):
    pixels = Faces(2, 64).item(position).image
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == GOLDEN_PIXELS[position]


def test_a_face_depends_on_seed_and_position_alone():
    faces = Faces(100, 32, seed=7)
    again = pickle.loads(pickle.dumps(faces)).item(5)
    np.testing.assert_array_equal(again.image, faces.item(5).image)
    assert again.meta == faces.item(5).meta
    assert Faces(100, 32, seed=8).item(5).meta != again.meta
    assert Faces(100, 64, seed=7).item(5).meta == again.meta


def test_attributes_are_independent_and_near_their_rates():
    metas = [Faces(2000, 8).item(position).meta for position in range(2000)]
    hairs = [name for name, _ in HAIRS]
    columns = np.array(
        [(m["yaw"], m["smile"], m["glasses"], m["female"], hairs.index(m["hair"]), m["skin"]) for m in metas]
    )
    assert np.abs(np.corrcoef(columns.T) - np.eye(6)).max() < 0.08
    assert np.abs(columns[:, 0]).max() <= MAX_YAW
    assert 0.46 < columns[:, 2].mean() < 0.54
    assert 0.46 < columns[:, 3].mean() < 0.54


def test_the_rim_of_glasses_has_a_colour_of_its_own():
    for position in range(120):
        item = Faces(200, 128).item(position)
        pixels = item.image.astype(int)
        like_rim = (np.abs(pixels - np.array(RIM) * 255) < 30).all(axis=2).sum()
        assert (like_rim > 40) == bool(item.meta["glasses"]), position


def test_turning_the_head_moves_the_glasses():
    yaws, middles = [], []
    for position in range(120):
        item = Faces(200, 128).item(position)
        if item.meta["glasses"]:
            rim = (np.abs(item.image.astype(int) - np.array(RIM) * 255) < 30).all(axis=2)
            yaws.append(item.meta["yaw"])
            middles.append(np.nonzero(rim)[1].mean())
    assert np.corrcoef(yaws, middles)[0, 1] > 0.96


def test_faces_keep_their_promise_of_json_bytes_and_their_labels():
    faces = Faces(10**9, 8, seed=2**63 - 1)
    for position in range(10**9 - 100, 10**9):
        item = faces.item(position)
        assert len(meta_json(item.meta | {"name": item.name, "label": item.label})) <= faces.meta_bytes
        assert faces.classes[item.label] == ("female" if item.meta["female"] else "male")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"images": 0}, "images=0 draws nothing"), ({"images": 1, "seed": -1}, "seed=-1 is outside")],
)
def test_a_wrong_setting_of_faces_is_one_line(settings, message):
    with pytest.raises(ShardsError, match=message):
        Faces(**settings, size=8)


NAMES = ("5_o_Clock_Shadow", "Eyeglasses", "Smiling")


def write_celeba(top, images=6, packed=False):
    """Pictures with the two lists; returns the bytes by name."""
    top.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for number in range(images):
        room = Image.fromarray(Rooms(100, 218).item(number).image).crop((0, 0, 178, 218))
        stream = io.BytesIO()
        room.save(stream, "JPEG", quality=90)
        pictures[f"{number + 1:06d}.jpg"] = stream.getvalue()
    if packed:
        with zipfile.ZipFile(top / "faces.zip", "w") as out:
            for name, data in pictures.items():
                out.writestr(f"img_align_celeba/{name}", data)
    else:
        (top / "img_align_celeba").mkdir()
        for name, data in pictures.items():
            (top / "img_align_celeba" / name).write_bytes(data)
    rows = [f"{name} {'-1  1 -1' if n % 2 else ' 1 -1  1'}" for n, name in enumerate(pictures)]
    (top / "list_attr_celeba.txt").write_text("\n".join([str(images), " ".join(NAMES) + " ", *rows]) + "\n")
    parts = [f"{name} {min(2, n // 2)}" for n, name in enumerate(pictures)]
    (top / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return pictures


@pytest.mark.parametrize("packed", [True, False])
def test_celeba_is_read_exactly_from_zip_and_folder(tmp_path, packed):
    pictures = write_celeba(tmp_path, packed=packed)
    path = str(tmp_path / ("faces.zip" if packed else "img_align_celeba"))
    source = pickle.loads(pickle.dumps(CelebA(path, crop="full", verified=False)))
    items = [source.item(position) for position in range(source.samples)]
    assert [(item.name, item.image) for item in items] == sorted(pictures.items())
    assert items[2].meta == {"partition": "valid", "attributes": ["5_o_Clock_Shadow", "Smiling"]}
    assert items[5].meta == {"partition": "test", "attributes": ["Eyeglasses"]}
    index = build(source, str(tmp_path / "out"), size=32, workers=2, shard_images=4)
    assert read_sample(str(tmp_path / "out"), index, position=5)[1] == items[5].meta | {"name": "000006.jpg"}


@pytest.mark.parametrize(
    ("crop", "box"), [("dcgan", (30, 40, 168, 178)), ("pggan", (89 - 64, 121 - 64, 89 + 64, 121 + 64))]
)
def test_the_crops_are_those_of_the_papers(tmp_path, crop, box):
    pictures = write_celeba(tmp_path)
    source = CelebA(str(tmp_path / "img_align_celeba"), "train", crop=crop, verified=False)
    assert source.samples == 2
    left, top, right, bottom = box
    wanted = decode(pictures["000002.jpg"])[top:bottom, left:right]
    np.testing.assert_array_equal(source.item(1).image, wanted)


def test_broken_pictures_of_celeba_are_counted(tmp_path, capsys):
    write_celeba(tmp_path, packed=True)
    data = bytearray((tmp_path / "faces.zip").read_bytes())
    data[data.index(b"000003.jpg") + 500] ^= 1
    (tmp_path / "faces.zip").write_bytes(data)
    command = ["build", "celeba", str(tmp_path / "faces.zip"), str(tmp_path / "out"), "--size", "32"]
    assert main([*command, "--workers", "1", "--unverified"]) == 0
    assert "left out 1 pictures (damaged: 1)" in capsys.readouterr().err
    assert load(str(tmp_path / "out")).samples == 5


def test_a_picture_too_small_for_the_crop_or_enormous_is_counted(tmp_path, monkeypatch):
    write_celeba(tmp_path)
    Image.new("RGB", (100, 100)).save(tmp_path / "img_align_celeba" / "000001.jpg")
    told = []
    source = CelebA(str(tmp_path / "img_align_celeba"), verified=False)
    build(source, str(tmp_path / "out"), size=32, workers=1, on_failures=told.extend)
    assert [failure.reason for failure in told] == ["wrong size"]
    monkeypatch.setattr(celeba, "MAX_FILE_BYTES", 9)
    with pytest.raises(ShardsError, match="none of the 6"):
        build(source, str(tmp_path / "out2"), size=32, workers=1)


def test_what_is_not_celeba_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(ShardsError, match=r"is not there; give img_align_celeba\.zip"):
        CelebA(str(tmp_path / "no"))
    with pytest.raises(ShardsError, match=r"holds no \.jpg files"):
        CelebA(str(tmp_path))
    (tmp_path / "x.zip").write_bytes(b"hello")
    with pytest.raises(ShardsError, match="is cut short or no zip"):
        CelebA(str(tmp_path / "x.zip"))
    write_celeba(tmp_path / "in")
    path = str(tmp_path / "in" / "img_align_celeba")
    with pytest.raises(ShardsError, match=r"is not the published list_eval_partition\.txt"):
        CelebA(path)
    lists = {
        name: (tmp_path / "in" / name).read_text() for name in (celeba.ATTRIBUTES_NAME, celeba.PARTITION_NAME)
    }
    for name, text, message in (
        (celeba.PARTITION_NAME, "000001.jpg 3\n", "line 1: '000001.jpg 3' is no name with 0, 1 or 2"),
        (celeba.PARTITION_NAME, "other.jpg 0\n", "none of its 6 pictures is in"),
        (celeba.ATTRIBUTES_NAME, "", "it is cut"),
        (
            celeba.ATTRIBUTES_NAME,
            lists[celeba.ATTRIBUTES_NAME][:-40],
            "line 7: .* is no name with 3 times|is cut",
        ),
        (
            celeba.ATTRIBUTES_NAME,
            "1\na b\nx.jpg 1 2\n",
            "line 3: 'x.jpg 1 2' is no name with 2 times 1 or -1",
        ),
    ):
        (tmp_path / "in" / name).write_text(text)
        with pytest.raises(ShardsError, match=message):
            CelebA(path, verified=False)
        (tmp_path / "in" / name).write_text(lists[name])
    monkeypatch.setattr(celeba, "MAX_LIST_BYTES", 9)
    with pytest.raises(ShardsError, match="has over 9 bytes"):
        CelebA(path, verified=False)
    (tmp_path / "in" / celeba.PARTITION_NAME).unlink()
    with pytest.raises(ShardsError, match=r"has no list_eval_partition\.txt in it or beside it"):
        CelebA(path, verified=False)
