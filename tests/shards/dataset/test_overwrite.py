"""Promises about files that are not ours: no build and no copy replaces, removes or reads them unasked."""

import os

import numpy as np
import pytest
from PIL import Image

from shards import ShardsError
from shards.__main__ import check_build, main
from shards.building.build import build
from shards.dataset.copy import copy
from shards.dataset.overwrite import BEGUN_NAME, is_same
from shards.sources.drawn.rooms import Rooms
from shards.storage import store
from tests.shards.dataset.foreign import picture, write

NAMES = (
    "shard-000000.tar",
    "shard-000007.tar",
    "shard-000003.idx",
    "report.json",
    "sheet.png",
    "failures.json",
    "blocks.npy",
    "part-000001-of-000002.json",
    "shard-000000.done.json",
)
ROOMS = ("build", "rooms", "--images", "6", "--size", "8", "--shard-images", "4", "--workers", "1")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def run(capsys, *words):
    status = main([str(word) for word in words])
    told = capsys.readouterr().err
    assert status in (0, 2)
    assert told.startswith("error: ") == (status == 2)
    assert status == 0 or told.count("\n") == 1
    return told


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [(), ("--part", "1/2"), ("--merge", "2")])
def test_a_build_leaves_files_that_are_not_ours(tmp_path, capsys, name, how):
    (tmp_path / name).write_bytes(b"a thesis")
    told = run(capsys, *ROOMS, tmp_path, *how)
    assert f"already holds {name}, which are not known to be ours" in told
    assert contents(tmp_path) == {name: b"a thesis"}
    with pytest.raises(ShardsError, match="not known to be ours"):
        check_build(["rooms", str(tmp_path), "--images", "6", "--size", "8"])


def test_a_build_that_is_told_to_replaces_them(tmp_path, capsys):
    for name in (*NAMES, "thesis.tar"):
        (tmp_path / name).write_bytes(b"a thesis")
    assert run(capsys, *ROOMS, tmp_path, "--overwrite") == ""
    found = contents(tmp_path)
    assert found.pop("thesis.tar") == b"a thesis"
    assert b"a thesis" not in found.values()
    assert sorted(found) == [
        "blocks.npy",
        "index.json",
        "report.json",
        "shard-000000.tar",
        "shard-000001.tar",
        "sheet.png",
    ]


def test_a_stopped_build_knows_its_own_files(tmp_path, monkeypatch):
    url, write_bytes = str(tmp_path), store.write_bytes

    def stop(where, data):
        if where.endswith("shard-000001.done.json"):
            raise KeyboardInterrupt
        write_bytes(where, data)

    monkeypatch.setattr(store, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        build(Rooms(6, 8), url, size=8, shard_images=2, workers=1)
    monkeypatch.undo()
    assert {BEGUN_NAME, "shard-000001.tar"} <= contents(tmp_path).keys()
    assert build(Rooms(6, 8), url, size=8, shard_images=2, workers=1).samples == 6
    assert BEGUN_NAME not in contents(tmp_path)


def test_a_report_of_ones_own_beside_a_dataset_is_left(tmp_path, capsys):
    build(Rooms(6, 8), str(tmp_path), size=8, shard_images=4, workers=1)
    for name in ("report.json", "part-1-of-3.json", "part-000001-of-000003.json"):
        (tmp_path / name).write_bytes(b"a thesis")
    assert run(capsys, *ROOMS, tmp_path) == ""
    found = contents(tmp_path)
    assert "sheet.png" in found
    assert list(found.values()).count(b"a thesis") == 3


@pytest.mark.parametrize(
    "name", ["shard-000000.tar", "shard-000001.tar", "shard-000000.idx", "blocks.npy", "same length"]
)
def test_a_copy_leaves_files_that_are_not_ours(tmp_path, name):
    index = build(Rooms(6, 8), str(tmp_path / "a"), size=8, shard_images=4, workers=1)
    out = tmp_path / "b"
    out.mkdir()
    odd = b"a thesis"
    if name == "same length":
        name, odd = "shard-000001.tar", bytes(index.shards[1].bytes)
    (out / name).write_bytes(odd)
    with pytest.raises(ShardsError, match=rf"already holds {name}, .*give --overwrite"):
        copy(str(tmp_path / "a"), str(out))
    assert (out / name).read_bytes() == odd
    assert "index.json" not in contents(out)
    assert copy(str(tmp_path / "a"), str(out), overwrite=True).shards > 0


def test_a_stopped_copy_goes_on(tmp_path):
    build(Rooms(6, 8), str(tmp_path / "a"), size=8, shard_images=4, workers=1)
    copy(str(tmp_path / "a"), str(tmp_path / "b"))
    whole = contents(tmp_path / "b")
    for name in ("index.json", "shard-000001.tar"):
        (tmp_path / "b" / name).unlink()
    assert copy(str(tmp_path / "a"), str(tmp_path / "b")).kept == 1
    assert contents(tmp_path / "b") == whole


def spellings(folder):
    (folder.parent / "link").symlink_to(folder)
    return [
        folder,
        f"{folder}/",
        f"file://{folder}",
        f"{folder}/../{folder.name}",
        folder.parent / "link",
        os.path.relpath(folder),
        folder / "shard-000000.tar",
    ]


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_build_does_not_replace_what_it_reads(tmp_path, capsys, number, overwrite):
    folder = tmp_path / "in"
    write(folder, [("0.jpg", picture(0))], name="shard-000000.tar")
    before = contents(folder)
    told = run(capsys, "build", "webdataset", spellings(folder)[number], folder, "--size", "16", *overwrite)
    assert "give another" in told
    assert contents(folder) == before


def test_a_build_does_not_replace_what_it_reads_through_links(tmp_path, capsys):
    write(tmp_path / "out", [("0.jpg", picture(0))], name="shard-000000.tar")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").symlink_to(tmp_path / "out" / "shard-000000.tar")
    before = contents(tmp_path / "out")
    words = ("build", "webdataset", tmp_path / "in", tmp_path / "out", "--size", "16", "--overwrite")
    assert "under a name that is written there" in run(capsys, *words)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3://b/a", "s3a://b/a/", True),
        ("s3://b//a", "s3://b/x/../a", True),
        ("s3://b/a", "s3://b/A", False),
        ("memory://a", "memory:///a", True),
        ("s3://b/a", "/b/a", False),
    ],
)
def test_places_are_told_by_what_they_are(one, other, same):
    assert is_same(one, other) is same


@pytest.mark.parametrize("source", ["folder", "webfaces"])
def test_a_dataset_of_ours_is_no_folder_of_pictures(tmp_path, capsys, source):
    pytest.importorskip("cv2")
    for name in ("cats/1.png", "dogs/1.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(path)
    ours = tmp_path / "in" / "shards"
    build(Rooms(4, 8), str(ours), size=8, workers=1)
    (ours / "sheet.png").write_bytes((tmp_path / "in/cats/1.png").read_bytes())
    (ours / "dedup").mkdir()
    (ours / "dedup" / "page.png").write_bytes((tmp_path / "in/cats/1.png").read_bytes())
    if source == "folder":
        for out in (tmp_path / "in" / "more", tmp_path / "in" / "more", tmp_path / "in" / "most"):
            told = run(capsys, "build", source, tmp_path / "in", out, "--size", "8", "--workers", "1")
            assert told == "" or "of ours (" in told
            assert store.read_bytes(f"{out}/report.json").startswith(b'{"bytes":')
            assert main(["info", str(out)]) == 0
            told = capsys.readouterr().out
            assert "2 (cats, dogs)" in told
    told = run(capsys, "build", source, ours, tmp_path / "out", "--size", "128", "--workers", "1")
    assert "is a dataset of ours" in told
