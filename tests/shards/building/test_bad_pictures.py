"""How many bad pictures a build takes, and that a failure of storage is never one of them."""

import errno
import json
import os
from pathlib import Path

import lmdb
import pytest

from shards.__main__ import main
from shards.building.build import build, plan_cut
from shards.building.failures import bad_allowed
from shards.building.parts import build_part, merge
from shards.dataset.index import INDEX_NAME, load
from shards.errors import ShardsError, StoreError
from shards.pictures.codec import encode
from shards.sources.drawn.rooms import Rooms
from shards.sources.own.folder import Folder
from shards.sources.published.lsun import Lsun
from shards.storage import store
from tests.shards.sources.odd_sources import Failing

PICTURE = encode(Rooms(1, 16).item(0).image, "png")


def pictures(top: Path, good: int, bad: int = 0) -> Path:
    top.mkdir()
    for number in range(good):
        (top / f"good-{number:04d}.png").write_bytes(PICTURE)
    for number in range(bad):
        (top / f"bad-{number:04d}.png").write_bytes(b"no picture")
    return top


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ETIMEDOUT])
def test_an_error_of_the_storage_stops_the_build_in_one_line(tmp_path, code):
    for workers in (1, 2):
        out = str(tmp_path / f"{workers}")
        with pytest.raises(StoreError, match=r"cannot read /data/000003: .*; the storage failed") as told:
            build(Failing(5, {3: code}), out, size=8, shard_images=2, workers=workers)
        assert "\n" not in str(told.value)
        assert INDEX_NAME not in store.sizes(out)
        build(Failing(5, {}), out, size=8, shard_images=2, workers=workers)
        assert load(out).samples == 5


def test_an_lmdb_that_cannot_be_read_stops_the_build(tmp_path, monkeypatch):
    with lmdb.open(str(tmp_path / "in")) as database, database.begin(write=True) as transaction:
        for number in range(5):
            transaction.put(f"{number:040x}".encode(), PICTURE)
    source = Lsun(str(tmp_path / "in"))

    def fail(path):
        raise lmdb.PageNotFoundError("mdb_get: MDB_PAGE_NOTFOUND")

    monkeypatch.setattr("shards.sources.published.lsun._open", fail)
    with pytest.raises(StoreError, match=r"cannot read 0000.*MDB_PAGE_NOTFOUND.*the build stops"):
        build(source, str(tmp_path / "out"), size=8, workers=1)


def test_a_folder_that_cannot_be_listed_is_not_passed_by(tmp_path, monkeypatch):
    pictures(tmp_path / "in", 1)
    (tmp_path / "in" / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ShardsError, match=r"/locked cannot be read .Permission denied"):
        Folder(str(tmp_path / "in"))


@pytest.mark.parametrize(
    ("samples", "allowed"),
    [(1, 1), (2, 1), (5, 3), (20, 10), (300, 10), (1000, 10), (5000, 50), (10**6, 10**4)],
)
def test_the_usual_limit(samples, allowed):
    assert bad_allowed(samples, None) == allowed


def test_a_share_that_is_given_is_taken_at_its_word():
    assert [bad_allowed(100, share) for share in (0.0, 0.001, 0.01, 0.29, 1.0)] == [0, 0, 1, 29, 100]
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ShardsError, match="is outside"):
            bad_allowed(100, share)


@pytest.mark.parametrize(("good", "bad"), [(19, 1), (290, 10)])
def test_a_few_bad_pictures_do_not_stop_a_first_build(tmp_path, good, bad):
    top = pictures(tmp_path / "in", good, bad)
    assert main(["build", "folder", str(top), str(tmp_path / "out"), "--size", "8", "--workers", "1"]) == 0
    assert load(str(tmp_path / "out")).samples == good


def test_too_many_stop_it_with_their_reasons_and_it_goes_on_when_they_are_allowed(tmp_path, capsys):
    top, out = pictures(tmp_path / "in", 8, 12), tmp_path / "out"
    (top / "empty.png").write_bytes(b"")
    words = ["build", "folder", str(top), str(out), "--size", "8", "--workers", "1", "--shard-images", "5"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 13 of 21 pictures are bad (not a picture: 13), and no more than 10 may be")
    assert "--max-bad SHARE" in line
    assert not (out / INDEX_NAME).exists()
    assert json.loads((out / "failures.json").read_bytes())["counts"] == {"not a picture": 13}
    assert main([*words, "--max-bad", "0.5"]) == 2
    assert main([*words, "--max-bad", "0.65"]) == 0
    assert load(str(out)).samples == 8
    assert main(words) == 0  # what is built is built


def test_parts_are_judged_together(tmp_path):
    source, cut = Folder(str(pictures(tmp_path / "in", 18, 6))), plan_cut(size=8, shard_images=4)
    out = str(tmp_path / "out")
    for part in (1, 2):
        build_part(source, out, cut, part=part, parts=2, workers=1, max_bad=0.25)
    with pytest.raises(ShardsError, match=r"6 of 24 pictures are bad .* no more than 4 may be"):
        merge(source, out, cut, parts=2, max_bad=0.2)
    assert merge(source, out, cut, parts=2, max_bad=0.25).samples == 18
    with pytest.raises(ShardsError, match=r"4 of 24 pictures are bad"):
        build_part(source, str(tmp_path / "other"), cut, part=1, parts=2, workers=1, max_bad=0.0)


def test_a_file_that_is_back_is_no_longer_missing(tmp_path):
    top, out = pictures(tmp_path / "in", 12), str(tmp_path / "out")
    source, hidden = Folder(str(top)), [top / f"good-{number:04d}.png" for number in range(3)]
    for path in hidden:
        path.rename(path.with_suffix(".hidden"))
    with pytest.raises(ShardsError, match=r"3 of 12 pictures are bad \(missing: 3\)"):
        build(source, out, size=8, shard_images=6, workers=1, max_bad=0.0)
    for path in hidden:
        path.with_suffix(".hidden").rename(path)
    assert build(source, out, size=8, shard_images=6, workers=1, max_bad=0.0).samples == 12


def test_what_a_source_lacks_by_nature_is_not_limited(tmp_path):
    index = build(Failing(40, dict.fromkeys(range(30), "no face")), str(tmp_path), size=8, workers=1)
    assert index.samples == 10
