"""Promises of the de-duplication: copies found, nothing else lost, one result for any order and ranks."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.describe import describe
from shards.dataset.index import load
from shards.dataset.splitmix import mix
from shards.dataset.verify import verify
from shards.dedup import grouping, removed
from shards.dedup.hashing import BITS, as_words, fold_encoder, hash_thumbs
from shards.dedup.report import judge, wilson
from shards.dedup.run import dedup
from shards.dedup.settings import Settings
from shards.dedup.thumbnails import THUMB_BYTES, shrink
from shards.errors import ShardsError
from shards.pictures.codec import to_square
from shards.storage import store
from tests.shards.dedup.planted import KINDS, Planted

QUICK = Settings(epochs=2, train_images=600)
ROOMS, COPIES = 400, 20


def contents(url):
    return {
        str(path.relative_to(url)): path.read_bytes()
        for path in sorted(Path(url).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("planted") / "set")
    build(Planted(ROOMS, COPIES), url, size=64, encoding="jpg", quality=97, shard_images=130, workers=1)
    return url


@pytest.fixture(scope="module")
def done(planted, tmp_path_factory):
    """The dataset after a quick de-duplication; not to be changed."""
    url = str(tmp_path_factory.mktemp("done") / "set")
    shutil.copytree(planted, url)
    dedup(url, QUICK)
    return url


def removed_names(url):
    source, index, at = Planted(ROOMS, COPIES), load(url), 0
    gone = []
    for shard in index.shards:
        gone += [at + place for place in shard.removed]
        at += shard.samples
    return {source.origin(position) for position in gone}


def test_exact_copies_are_found_and_no_two_rooms_are_merged(done):
    gone = removed_names(done)
    # One of each pair goes, whichever; nothing but pairs may.
    for number in range(COPIES):
        assert ((("", number) in gone) + (("exact", number) in gone)) == 1
    for kind, original in gone:
        assert not (kind and ("", original) in gone), (kind, original)
    assert len({original for _, original in gone}) == len(gone)
    report = json.loads(store.read_bytes(f"{done}/dedup/report.json"))
    assert (
        report["removed"]
        == len(gone)
        == sum((int(size) - 1) * n for size, n in report["buckets_by_size"].items())
    )
    assert report["dead_bits"] == 0
    assert 60 < report["entropy_bits"] <= BITS


def test_shards_are_not_rewritten_and_the_dataset_stays_whole(planted, done):
    before, after = contents(planted), contents(done)
    assert {name for name in before if before[name] != after[name]} == {"index.json"}
    assert list(verify(done)) == []
    assert load(done).kept < load(done).samples
    assert "removed" in describe(done, load(done))


def test_the_same_command_again_changes_nothing(done):
    before = contents(done)
    dedup(done, QUICK)
    assert contents(done) == before


def test_undo_gives_the_old_index_back_and_keeps_the_marks_of_others(planted, tmp_path, capsys):
    url = str(tmp_path / "set")
    shutil.copytree(planted, url)
    index = load(url)
    shards = (replace(index.shards[0], removed=(0, 7)), *index.shards[1:])
    store.write_bytes(f"{url}/index.json", indexes.dump(replace(index, shards=shards)))
    before = store.read_bytes(f"{url}/index.json")
    assert main(["dedup", url, "--epochs", "1", "--train-images", "200"]) == 0
    told = capsys.readouterr().out
    assert "marked in the index; --undo takes it back" in told
    assert set(load(url).shards[0].removed) >= {0, 7}
    assert store.read_bytes(f"{url}/index.json") != before
    assert main(["dedup", url, "--undo"]) == 0
    assert store.read_bytes(f"{url}/index.json") == before
    assert main(["dedup", url, "--undo"]) == 2
    assert "nothing to undo" in capsys.readouterr().err


def test_the_result_does_not_depend_on_the_order_of_shards(planted, done, tmp_path):
    url = str(tmp_path / "set")
    shutil.copytree(planted, url)
    index = load(url)
    blocks, starts = indexes.load_blocks(url, index), index.block_starts()
    order = [3, 0, 2, 1]
    turned = replace(index, shards=tuple(index.shards[number] for number in order))
    rows = np.concatenate([blocks[starts[number] : starts[number + 1]] for number in order])
    indexes.save(url, turned, rows)
    dedup(url, QUICK)
    assert {shard.sha256: shard.removed for shard in load(url).shards} == {
        shard.sha256: shard.removed for shard in load(done).shards
    }


COMMAND = ["-m", "shards", "dedup", "--epochs", "2", "--train-images", "600"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_result_does_not_depend_on_ranks_and_threads(planted, done, tmp_path, ranks):
    url = str(tmp_path / "set")
    shutil.copytree(planted, url)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), *COMMAND, url]
    environment = os.environ | {"OMP_NUM_THREADS": str(ranks)}
    ran = subprocess.run(torchrun, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("removed:") == 1
    assert contents(url) == contents(done)


def kill_until_done(command, kills, restart):
    """Run `command`, killed at `kills` random moments, then to its end.

    A run that ends before it is killed starts over after `restart`, so that each kill meets work under way.
    """
    dice, longest = random.Random(kills), 6.0
    while kills:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        try:
            assert process.wait(dice.uniform(0.3, longest)) == 0
            longest = time.monotonic() - began
            restart()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills -= 1
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.slow), pytest.param(30, marks=pytest.mark.long)]
)
def test_a_killed_run_ends_where_the_unbroken_one_ends(planted, done, tmp_path, kills):
    url = str(tmp_path / "set")
    shutil.copytree(planted, url)

    def restart():
        shutil.rmtree(url)
        shutil.copytree(planted, url)

    kill_until_done([*COMMAND, url], kills, restart)
    found = {name: data for name, data in contents(url).items() if not name.endswith(".tmp")}
    assert found == contents(done)


def test_marks_written_halfway_can_be_undone(planted, tmp_path, monkeypatch):
    url = str(tmp_path / "set")
    shutil.copytree(planted, url)
    before = store.read_bytes(f"{url}/index.json")
    name = load(url).shards[1].name
    removed.write_marks(url, {name: [3, 4]})
    write = store.write_bytes

    def stop(where, data):
        if where.endswith("index.json"):
            raise KeyboardInterrupt
        write(where, data)

    monkeypatch.setattr(store, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        removed.write_marks(url, {name: [9]})
    monkeypatch.undo()
    assert load(url).shards[1].removed == (3, 4)
    assert removed.undo(url) == 2
    assert store.read_bytes(f"{url}/index.json") == before


def test_the_page_is_drawn_and_judged(done, tmp_path, capsys):
    url = str(tmp_path / "set")
    shutil.copytree(done, url)
    report = json.loads(store.read_bytes(f"{url}/dedup/report.json"))
    assert store.read_bytes(f"{url}/dedup/page.png").startswith(b"\x89PNG")
    assert len(report["page"]) == min(100, report["removed"])
    assert main(["dedup", url, "--wrong", "2", "2"]) == 0
    assert f"{report['removed']} pairs" in capsys.readouterr().out
    assert judge(url, [])["precision"] == 1.0
    assert main(["dedup", url, "--wrong", "999"]) == 2
    assert "wrong=999 is no pair of the page" in capsys.readouterr().err


def test_wilsons_interval():
    low, high = wilson(98, 100)
    assert (round(low, 3), round(high, 3)) == (0.930, 0.994)
    assert wilson(5, 5)[1] == 1.0


def test_without_a_report_there_is_nothing_to_judge(planted, tmp_path):
    with pytest.raises(ShardsError, match="has no report; run: python -m shards dedup"):
        judge(planted, [])
    url = str(tmp_path / "set")
    (tmp_path / "set" / "dedup").mkdir(parents=True)
    (tmp_path / "set" / "dedup" / "report.json").write_text('{"page":[]}')
    with pytest.raises(ShardsError, match="nothing was removed"):
        judge(url, [])


def test_the_perceptual_hash_finds_exact_copies_too(planted, tmp_path):
    url = str(tmp_path / "set")
    shutil.copytree(planted, url)
    assert main(["dedup", url, "--hash", "perceptual"]) == 0
    gone = removed_names(url)
    assert all((("", number) in gone) or (("exact", number) in gone) for number in range(COPIES))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hash": "md5"}, "hash='md5' is not known; choose one of autoencoder, perceptual"),
        ({"radius": 9}, r"radius=9 is outside \[0, 8\]"),
        ({"epochs": 0}, r"epochs=0 is outside \[1, 1000\]"),
        ({"train_images": 0}, "train_images=0 is outside"),
    ],
)
def test_a_wrong_setting_of_dedup_is_one_line(settings, message):
    with pytest.raises(ShardsError, match=message):
        Settings(**settings)


def test_a_damaged_block_is_one_line(planted, tmp_path):
    url = str(tmp_path / "set")
    shutil.copytree(planted, url)
    path = Path(url) / load(url).shards[0].name
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardsError, match=r"do not match their checksum; run: python -m shards verify"):
        dedup(url, QUICK)


def test_damaged_hashes_are_made_anew(done, tmp_path):
    url = str(tmp_path / "set")
    shutil.copytree(done, url)
    path = next((Path(url) / "dedup").glob("*.hashes"))
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    dedup(url, QUICK)
    assert contents(url) == contents(done)


def test_codes_are_exact_whatever_the_batch():
    rng = np.random.default_rng(0)
    encoder = fold_encoder(
        rng.normal(size=(THUMB_BYTES, BITS)), rng.normal(size=BITS), rng.random(THUMB_BYTES)
    )
    thumbs = rng.integers(0, 256, (1500, THUMB_BYTES), np.uint8)
    together = hash_thumbs(encoder, thumbs)
    apart = np.concatenate(
        [hash_thumbs(encoder, thumbs[start : start + 130]) for start in range(0, 1500, 130)]
    )
    np.testing.assert_array_equal(together, apart)
    slow = thumbs[:20].astype(np.int64) @ encoder[:-1] + encoder[-1] > 0
    np.testing.assert_array_equal(np.unpackbits(together[:20, :16], axis=1), slow)


def test_thumbnails_are_those_of_the_build():
    rng = np.random.default_rng(0)
    for side in (16, 32, 48, 64, 128):
        pixels = rng.integers(0, 256, (3, side, side, 3), np.uint8)
        wanted = np.stack([to_square(picture, 32) for picture in pixels]).reshape(3, -1)
        assert np.abs(shrink(pixels).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("radius", [0, 1, 3, 4, 5, 8])
def test_groups_are_those_of_all_pairs_compared(radius):
    rng = np.random.default_rng(radius)
    words = rng.integers(0, 2**63, (120, 2), np.uint64)
    near = words[rng.integers(0, 120, 160)].copy()
    for row in near:
        for bit in rng.integers(0, 128, rng.integers(0, 10)):
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    words = np.concatenate([words, near, words[:10]])
    labels = list(range(len(words)))
    for a, b in combinations(range(len(words)), 2):
        if sum(int(x).bit_count() for x in words[a] ^ words[b]) <= radius and labels[a] != labels[b]:
            old, new = max(labels[a], labels[b]), min(labels[a], labels[b])
            labels = [new if label == old else label for label in labels]
    found = grouping.group(words[:, 0], words[:, 1], radius=radius)
    wanted = {frozenset(np.flatnonzero(np.array(labels) == label)) for label in labels}
    assert {frozenset(np.flatnonzero(found == label)) for label in found} == wanted
    assert len(wanted) < 280 if radius else len(wanted) < 290


def test_hashes_that_mix_to_the_same_stay_apart(monkeypatch):
    words = np.random.default_rng(0).integers(0, 3, (200, 2), np.uint64)
    wanted = grouping.group(words[:, 0], words[:, 1])
    monkeypatch.setattr(grouping, "mix", lambda value: value * np.uint64(0))
    found = grouping.group(words[:, 0], words[:, 1])
    assert len(set(zip(found, wanted, strict=True))) == len(set(found)) == len(set(wanted)) == 9


def test_near_hashes_of_other_colours_stay_apart():
    high, low = np.array([0, 1, 3], np.uint64), np.zeros(3, np.uint64)
    colours = np.zeros((3, 48), np.int16)
    colours[2, 7] = grouping.COLOUR_LEVELS + 1
    assert len(set(grouping.group(high, low, radius=1))) == 1
    found = grouping.group(high, low, radius=1, colours=colours)
    assert found[0] == found[1] != found[2]


def test_equal_hashes_of_other_colours_stay_apart_in_any_order():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 3, (300, 2), np.uint64)
    colours = np.repeat(rng.integers(0, 4, (300, 1)) * 60, 48, axis=1) + rng.integers(0, 5, (300, 48))
    colours = colours.astype(np.int16)
    for radius in (0, 4):
        found = grouping.group(words[:, 0] << np.uint64(20), words[:, 1], radius=radius, colours=colours)
        for group in set(found):
            of_group = colours[found == group]
            assert np.ptp(of_group, axis=0).max() <= grouping.COLOUR_LEVELS
        order = rng.permutation(300)
        turned = grouping.group(
            words[order, 0] << np.uint64(20), words[order, 1], radius=radius, colours=colours[order]
        )
        pairs = set(zip(found[order], turned, strict=True))
        assert len(pairs) == len(set(found)) == len(set(turned))
        assert len(set(found)) == (36 if radius == 0 else len(pairs))


def test_one_survives_in_each_group_and_it_is_the_preferred_one():
    rng = np.random.default_rng(0)
    groups, priority = rng.integers(0, 50, 400), mix(np.arange(400, dtype=np.uint64))
    kept = grouping.survivors(groups, priority)
    np.testing.assert_array_equal(groups[kept], groups)
    for label in range(50):
        members = np.flatnonzero(groups == label)
        assert set(kept[members]) == {members[np.argmin(priority[members])]}


def test_candidates_in_small_portions_are_the_same(monkeypatch):
    words = np.random.default_rng(0).integers(0, 4, (300, 2), np.uint64)
    whole = grouping.group(words[:, 0], words[:, 1], radius=2)
    monkeypatch.setattr(grouping, "PAIRS", 7)
    np.testing.assert_array_equal(grouping.group(words[:, 0], words[:, 1], radius=2), whole)


def test_words_are_the_bits_in_order():
    rows = np.zeros((1, 72), np.uint8)
    rows[0, [7, 15, 23]] = 1, 2, 3
    assert [int(word[0]) for word in as_words(rows, perceptual=False)] == [1, 2]
    assert [int(word[0]) for word in as_words(rows, perceptual=True)] == [0, 3]


@pytest.mark.slow
def test_near_copies_are_found_at_radius_four(tmp_path):
    rooms, copies = 12_000, 300
    url = str(tmp_path / "set")
    build(Planted(rooms, copies), url, size=64)
    dedup(url, Settings(radius=4))
    index = load(url)
    gone = np.concatenate([np.isin(np.arange(shard.samples), shard.removed) for shard in index.shards])
    for kind, at_least in {"exact": 1.0, "jpeg75": 0.95, "resize": 0.98}.items():
        first = list(KINDS).index(kind) * copies
        pairs = gone[first : first + copies] | gone[rooms + first : rooms + first + copies]
        assert pairs.mean() >= at_least, kind
    assert gone.sum() <= copies * len(KINDS)
    assert not gone[copies * len(KINDS) : rooms].any()
