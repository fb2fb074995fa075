"""Promises about the indexes for DALI: they are the format of its wds2idx, and never stale unnoticed."""

import tarfile

import numpy as np
import pytest

from shards import ShardsError
from shards.__main__ import main
from shards.building.build import build
from shards.dataset.adopt import reindex
from shards.dataset.copy import copy
from shards.dataset.verify import verify
from shards.sources.drawn.rooms import Rooms
from shards.storage import store
from tests.shards.dataset.foreign import picture, write

SETTINGS = {"size": 16, "shard_images": 6, "block_samples": 4, "encoding": "jpg", "workers": 1}


@pytest.fixture
def dataset(tmp_path):
    url = str(tmp_path / "set")
    build(Rooms(10, 16), url, **SETTINGS)
    assert main(["index", url, "--dali"]) == 0
    return url


def read(url, name):
    return store.read_bytes(store.join(url, name))


def test_an_index_names_offset_and_length_of_every_member(tmp_path):
    members = [("d/", b""), ("README", b"x")]
    for number in range(5):
        name = f"d/{'long' * 30}{number}" if number else "./d/0"
        members += [(f"{name}.JPG", picture(number)), (f"{name}.seg.png", b"p" * 700), (f"{name}.cls", b"1")]
    url = write(tmp_path / "set", members)
    assert main(["index", url, "--dali", "--block-images", "2"]) == 0
    first, *lines = read(url, "00000.idx").decode().splitlines()
    assert first == "v1.2 5"
    told = [line.split(" ")[at : at + 4] for line in lines for at in range(0, 12, 4)]
    with tarfile.open(f"{url}/00000.tar") as tar:
        files = [member for member in tar.getmembers() if member.isfile() and "." in member.name[1:]]
    expected = [
        [
            member.name.split(".", 2 if member.name[0] == "." else 1)[-1],
            member.offset_data,
            member.size,
            member.name,
        ]
        for member in files
    ]
    assert told == [[str(part) for part in row] for row in expected]
    assert {row[0] for row in told} == {"JPG", "seg.png", "cls"}
    assert list(verify(url)) == []


def test_every_command_copes_with_them(dataset, tmp_path, capsys):
    assert main(["verify", dataset, "--decode"]) == 0
    assert main(["info", dataset]) == 0
    assert main(["cp", dataset, str(tmp_path / "copy")]) == 0
    copied = {
        "blocks.npy",
        "index.json",
        *(f"shard-00000{n}.{kind}" for n in (0, 1) for kind in ("tar", "idx")),
    }
    assert store.sizes(str(tmp_path / "copy")).keys() == copied
    assert list(verify(str(tmp_path / "copy"))) == []
    assert capsys.readouterr().err == ""


def test_a_stale_index_is_found(dataset):
    where = store.join(dataset, "shard-000001.idx")
    store.write_bytes(where, store.read_bytes(where).replace(b"v1.2 4", b"v1.2 3"))
    told = (
        f"shard-000001.idx: not the index of shard-000001.tar; run: python -m shards index {dataset} --dali"
    )
    assert list(verify(dataset)) == [told]
    store.write_bytes(where, b"")
    assert list(verify(dataset)) == [told]
    assert main(["index", dataset, "--dali"]) == 0
    assert list(verify(dataset)) == []


def test_a_new_build_or_copy_takes_old_ones_away(dataset, tmp_path):
    other = str(tmp_path / "other")
    build(Rooms(5, 16, seed=3), other, **SETTINGS)
    copy(other, dataset, overwrite=True)
    assert store.sizes(dataset).keys() == {"blocks.npy", "index.json", "shard-000000.tar"}
    assert main(["index", dataset, "--dali"]) == 0
    assert copy(other, dataset, overwrite=True).kept == 1
    assert "shard-000000.idx" in store.sizes(dataset), "the tar is the same, and so is its index"
    build(Rooms(10, 16), dataset, **SETTINGS, overwrite=True)
    assert "shard-000000.idx" not in store.sizes(dataset)
    assert list(verify(dataset)) == []


def test_a_name_with_blanks_is_one_line(tmp_path):
    url = write(tmp_path / "set", [("my room.jpg", picture(0))])
    with pytest.raises(ShardsError, match=r"00000\.tar: DALI's index cannot name 'my room\.jpg'"):
        reindex(url, dali=True)
    assert main(["index", url]) == 0


def test_dali_itself_reads_them(tmp_path):
    dali = pytest.importorskip(
        "nvidia.dali", reason="pip install nvidia-dali-cuda120, which needs no GPU here"
    )
    members = []
    for number in range(10):
        name = f"d/{'long' * 40}{number}" if number % 3 else f"./d/{number}"
        members += [(f"{name}.jpg", picture(number)), (f"{name}.seg.png", b"p" * 700), (f"{name}.cls", b"1")]
    url = write(tmp_path / "set", [("d/", b""), ("README", b"x" * 600), *members])
    reindex(url, dali=True)
    pipeline = dali.Pipeline(batch_size=5, num_threads=1, device_id=None)
    with pipeline:
        paths = {"paths": [f"{url}/00000.tar"], "index_paths": [f"{url}/00000.idx"]}
        pipeline.set_outputs(*dali.fn.readers.webdataset(**paths, ext=["jpg", "seg.png", "cls"]))
    pipeline.build()
    read = [
        bytes(np.array(part)) for _ in range(2) for row in zip(*pipeline.run(), strict=True) for part in row
    ]
    assert read == [data for _, data in members]
