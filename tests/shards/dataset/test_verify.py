"""Promises of verify, cat and the command line: damage is found and named; wrong input is one line."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shards
from shards import ShardsError
from shards.__main__ import main
from shards.building.build import build
from shards.dataset.adopt import reindex
from shards.dataset.describe import read_sample
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.dataset.verify import verify
from shards.sources.drawn.rooms import Rooms
from shards.storage import store
from shards.tars.records import npy_header
from tests.cluster.faultproxy import Rule


@pytest.fixture
def dataset(tmp_path):
    url = str(tmp_path / "set")
    return url, build(Rooms(20, 8), url, size=8, shard_images=10, block_samples=4, workers=1)


def change(url, name, edit):
    where = store.join(url, name)
    store.write_bytes(where, bytes(edit(bytearray(store.read_bytes(where)))))


def flip(at):
    def edit(data):
        data[at] ^= 1
        return data

    return edit


def test_a_whole_dataset_has_no_problems(dataset):
    assert list(verify(dataset[0], decode=True)) == []


def test_a_flipped_bit_is_found_with_its_block(dataset):
    url, index = dataset
    change(url, "shard-000001.tar", flip(5 * index.record_bytes + 700))
    start, stop = 4 * index.record_bytes, 8 * index.record_bytes
    assert list(verify(url)) == [
        f"shard-000001.tar: block 1 (bytes {start} to {stop}): its sum differs",
        "shard-000001.tar: its sha256 differs",
    ]


def test_a_flipped_bit_after_the_last_block_is_found(dataset):
    change(dataset[0], "shard-000000.tar", flip(-1))
    assert list(verify(dataset[0])) == ["shard-000000.tar: its sha256 differs"]


def test_a_truncated_shard_is_found_and_the_others_are_still_read(dataset):
    url, index = dataset
    change(url, "shard-000000.tar", lambda data: data[: 6 * index.record_bytes])
    change(url, "shard-000001.tar", flip(0))
    found = list(verify(url))
    assert (
        found[0]
        == f"shard-000000.tar: {6 * index.record_bytes} bytes, the index says {index.shards[0].bytes}"
    )
    assert found[1].startswith("shard-000000.tar: block 1: cannot read bytes")
    assert found[2].startswith("shard-000001.tar: block 0")


def test_a_shard_cut_after_its_last_block_is_found(dataset):
    change(dataset[0], "shard-000000.tar", lambda data: data[:-512])
    assert "after the last block" in list(verify(dataset[0]))[1]


def test_a_missing_shard_is_found(dataset):
    store.remove(store.join(dataset[0], "shard-000000.tar"))
    assert list(verify(dataset[0])) == ["shard-000000.tar: missing"]


def test_a_picture_that_does_not_decode_is_found_on_request(tmp_path):
    url = str(tmp_path)
    build(Rooms(4, 8), url, size=8, encoding="png", workers=1)
    data = bytearray(store.read_bytes(store.join(url, "shard-000000.tar")))
    at = data.index(b"IDAT") + 6
    data[at : at + 8] = bytes(8)
    store.write_bytes(store.join(url, "shard-000000.tar"), bytes(data))
    reindex(url)  # so that every checksum is right
    assert list(verify(url)) == []
    (line,) = verify(url, decode=True)
    assert line.startswith("shard-000000.tar: block 0: sample 00000000: it does not decode")
    with pytest.raises(ShardsError, match=r"sample 0 of shard-000000.tar: it does not decode.* --decode"):
        Blocks(url, load(url)).at([2])


def test_a_record_damaged_before_it_was_indexed_is_found(tmp_path):
    url = str(tmp_path)
    index = build(Rooms(4, 8), url, size=8, workers=1)
    table = index.block_counts()
    assert table.tolist() == [4]
    change(url, "shard-000000.tar", lambda data: data.replace(npy_header(8), npy_header(9), 1))
    assert len(list(verify(url, decode=True))) == 2


@pytest.mark.parametrize("position", [0, 3, 4, 9, 10, 19])
def test_any_sample_can_be_looked_at(dataset, position):
    url, index = dataset
    pixels, meta = read_sample(url, index, position=position)
    np.testing.assert_array_equal(pixels, Rooms(20, 8).item(position).image)
    assert meta["name"] == f"room-0-{position}"


def test_looking_at_a_damaged_or_absent_sample_is_one_line(dataset):
    url, index = dataset
    with pytest.raises(ShardsError, match=r"sample 20 is outside \[0, 20\)"):
        read_sample(url, index, position=20)
    change(url, "shard-000000.tar", flip(700))
    with pytest.raises(ShardsError, match=r"do not match their checksum; run: python -m shards verify"):
        read_sample(url, index, position=0)


@pytest.mark.s3
def test_remote_blocks_are_read_several_at_once_and_findings_keep_their_order(
    faulty_folder, fault_proxy, tmp_path
):
    local = str(tmp_path / "set")
    build(Rooms(96, 8), local, size=8, shard_images=48, block_samples=2, workers=1)
    for block in (3, 4, 20):
        change(local, "shard-000001.tar", flip(2 * block * 2048 + 700))
    for name in store.sizes(local):
        store.write_bytes(store.join(faulty_folder, name), store.read_bytes(store.join(local, name)))
    found = list(verify(local, decode=True))
    assert [line.split(" (")[0] for line in found[:3]] == [f"shard-000001.tar: block {n}" for n in (3, 4, 20)]
    fault_proxy.rules(Rule("latency", seconds=0.3))
    began = time.monotonic()
    assert list(verify(faulty_folder, decode=True)) == found
    assert time.monotonic() - began < 48 * 0.3


@pytest.mark.s3
def test_remote_shards_are_indexed_several_at_once(faulty_folder, fault_proxy, tmp_path):
    local = str(tmp_path / "set")
    index = build(Rooms(64, 8), local, size=8, shard_images=2, workers=1)
    for shard in index.shards:
        store.write_bytes(
            store.join(faulty_folder, shard.name), store.read_bytes(store.join(local, shard.name))
        )
    fault_proxy.rules(Rule("latency", seconds=0.3))
    began = time.monotonic()
    assert reindex(faulty_folder).shards == index.shards
    assert time.monotonic() - began < 32 * 0.3


def run(*arguments, folder):
    environment = os.environ | {"PYTHONPATH": str(Path(shards.__file__).parent.parent)}
    command = [sys.executable, "-m", "shards", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_dataset_is_built_and_looked_at_from_the_command_line(tmp_path):
    built = run(
        "build", "rooms", "set", "--images", "30", "--size", "16", "--shard-images", "10", folder=tmp_path
    )
    assert (built.returncode, built.stderr) == (0, "")
    assert built.stdout.startswith("built: 30 images, 3 shards")
    again = run(
        "build", "rooms", "set", "--images", "30", "--size", "16", "--shard-images", "10", folder=tmp_path
    )
    assert again.stdout == "already built: 30 images in set\n"


def test_a_mistake_on_the_command_line_is_one_line_and_status_2(tmp_path):
    told = run("build", "rooms", "set", "--size", "3", folder=tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == "error: size=3 is outside [4, 1024]; give one inside\n"


def test_the_package_imports_without_torch(tmp_path):
    code = "import sys, shards.__main__; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(shards.__file__).parent.parent)}
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False).returncode
        == 0
    )


def test_verify_tells_its_finding_by_the_exit_status(dataset, capsys):
    assert main(["verify", dataset[0], "--decode"]) == 0
    assert capsys.readouterr().out == "whole: 20 images, 0 problems\n"
    change(dataset[0], "shard-000000.tar", flip(0))
    assert main(["verify", dataset[0]]) == 1
    assert "damaged: 20 images, 2 problems" in capsys.readouterr().out


def test_cat_writes_the_picture_and_prints_its_json(dataset, tmp_path, capsys):
    assert main(["cat", dataset[0], "7", "--out", str(tmp_path / "x.png")]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "room-0-7"
    with Image.open(tmp_path / "x.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), Rooms(20, 8).item(7).image)


def test_info_and_index_answer(dataset, capsys):
    assert main(["info", dataset[0]]) == 0
    assert "images    20\n" in capsys.readouterr().out
    assert main(["index", dataset[0], "--block-images", "5"]) == 0
    assert capsys.readouterr().out == "indexed: 20 images in 2 shards\n"


def test_left_out_pictures_are_listed_up_to_a_limit(tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    for number in range(23):
        (tmp_path / f"bad-{number:02d}.png").write_bytes(b"no")
    words = ["--size", "8", "--workers", "1", "--max-bad", "1"]
    assert main(["build", "folder", str(tmp_path), str(tmp_path / "out"), *words]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "left out 23 pictures (not a picture: 23)"
    assert lines[1].startswith("  bad-00.png: not a picture we read")
    assert lines[-1] == "  and 3 more, all in failures.json"
    assert len(lines) == 22


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build"], "error: the following arguments are required: SOURCE; see python -m shards build --help"),
        (
            ["build", "rooms", "out", "--images", "many"],
            "error: argument --images: invalid int value: 'many'; see",
        ),
        (["build", "rooms", "out", "--images", "0"], "error: images=0 draws nothing; give 1 or more"),
        (
            ["build", "folder", "no", "out"],
            "error: no is not a folder; give the folder that holds the pictures",
        ),
        (["info", "no"], "error: no does not exist; to make a dataset run: python -m shards build rooms no"),
        (["cat", "no", "-1"], "error: no does not exist"),
    ],
)
def test_every_mistake_is_one_line_on_stderr(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    told = capsys.readouterr()
    assert (status, told.out) == (2, "")
    assert told.err.startswith(message)
    assert told.err.count("\n") == 1
