"""Promises of `index` where an index was before: what it says and the tars do not is never lost unasked."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from shards import ShardsError
from shards.__main__ import main
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.adopt import reindex
from shards.dataset.index import dump, load
from shards.dataset.overwrite import BEGUN_NAME
from shards.errors import StoreError
from shards.sources.drawn.rooms import Rooms
from shards.sources.own.folder import Folder
from shards.storage import store
from tests.shards.dataset.foreign import picture, write


@pytest.fixture
def marked(tmp_path):
    """A dataset of two classes and two shards, with marks of de-duplication in both."""
    for number in range(6):
        folder = tmp_path / "in" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(picture(number))
    out = tmp_path / "set"
    index = build(Folder(str(tmp_path / "in")), str(out), size=8, shard_images=3, workers=1)
    shards = tuple(replace(shard, removed=(number,)) for number, shard in enumerate(index.shards))
    (out / "index.json").write_bytes(dump(replace(index, shards=shards)))
    return out


def damaged(data):
    at = data.index(b'"image_size"') + 14
    return data[:at] + b"9" + data[at + 1 :]


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (damaged, "2 class names, 2 marks of de-duplication"),
        (lambda data: data[: data.index(b'"encoding"')], "the class names, any marks of de-duplication"),
        (lambda data: b"", "the class names, any marks"),
        (lambda data: b'{"mine": 1}', "the class names, any marks"),
    ],
)
def test_a_damaged_index_is_not_replaced_unasked(marked, capsys, change, lost):
    data = change((marked / "index.json").read_bytes())
    (marked / "index.json").write_bytes(data)
    assert main(["index", str(marked)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert f"a new index would lose {lost}" in told
    assert "give --overwrite" in told
    assert (marked / "index.json").read_bytes() == data
    assert main(["index", str(marked), "--overwrite"]) == 0
    assert load(str(marked)).kept == 6


def test_a_whole_index_keeps_names_marks_and_source(marked):
    before = load(str(marked))
    (marked / "blocks.npy").unlink()
    assert reindex(str(marked)) == before
    assert before.classes == ("cat", "dog")
    assert before.kept == 4


def test_marks_of_a_tar_that_changed_are_not_lost_unasked(marked):
    build(Rooms(3, 8), str(marked.parent / "other"), size=8, workers=1)
    data = (marked.parent / "other" / "shard-000000.tar").read_bytes()
    (marked / "shard-000001.tar").write_bytes(data)
    before = (marked / "index.json").read_bytes()
    with pytest.raises(ShardsError, match=r"shard-000001\.tar is not the tar .* 1 marks of de-duplication"):
        reindex(str(marked))
    (marked / "shard-000001.tar").unlink()
    with pytest.raises(ShardsError, match=r"1 marks of de-duplication would be lost; put the tars back"):
        reindex(str(marked))
    assert (marked / "index.json").read_bytes() == before
    assert reindex(str(marked), overwrite=True).kept == 2


def test_storage_that_fails_is_no_damaged_index(marked, monkeypatch):
    read = store.read_bytes

    def fail(url, **options):
        if url.endswith("index.json"):
            raise StoreError(f"cannot read {url}: Input/output error")
        return read(url, **options)

    before = (marked / "index.json").read_bytes()
    monkeypatch.setattr(store, "read_bytes", fail)
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"cannot read .*index\.json: Input/output error"):
            reindex(str(marked), overwrite=overwrite)
    assert (marked / "index.json").read_bytes() == before


def test_labels_that_the_old_index_has_no_name_for_get_one(tmp_path):
    url = write(tmp_path / "set", [("0.jpg", picture(0)), ("0.cls", b"1")], name="0.tar")
    assert reindex(url).classes == ("0", "1")
    write(tmp_path / "set", [("1.jpg", picture(1)), ("1.cls", b"3")], name="1.tar")
    assert reindex(url).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("name", ["blocks.npy", "0.idx"])
def test_files_that_are_not_ours_are_not_replaced(tmp_path, name):
    url = write(tmp_path / "set", [("0.jpg", picture(0))], name="0.tar")
    (tmp_path / "set" / name).write_bytes(b"a thesis")
    with pytest.raises(ShardsError, match=rf"already holds {re.escape(name)}, .*give --overwrite"):
        reindex(url, dali=True)
    assert (tmp_path / "set" / name).read_bytes() == b"a thesis"
    assert reindex(url, dali=True, overwrite=True).samples == 1
    assert reindex(url, dali=True).samples == 1  # over its own
    assert np.load(tmp_path / "set" / "blocks.npy").shape == (1,)


def test_a_build_that_has_not_ended_is_not_taken_for_a_dataset(tmp_path):
    build(Rooms(6, 8), str(tmp_path), size=8, shard_images=3, workers=1)
    (tmp_path / "index.json").unlink()
    (tmp_path / "shard-000001.tar").unlink()
    (tmp_path / BEGUN_NAME).write_bytes(json.dumps({"settings": {}}).encode())
    with pytest.raises(ShardsError, match="a build that has begun and not ended; run that build again"):
        reindex(str(tmp_path))
    assert indexes.INDEX_NAME not in store.sizes(str(tmp_path))
    assert reindex(str(tmp_path), overwrite=True).samples == 3
