"""Promises of storage under faults: the right bytes, or one line in bounded time; never wrong ones."""

import hashlib
import os
import re
import time
from collections import Counter

import pytest

from benchmarks.faults import count_faults, rules, serve_epochs
from dcgan_dist.train import main
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.blocks import block_sum
from shards.dataset.copy import copy
from shards.dataset.verify import verify
from shards.errors import StoreError
from shards.sources.drawn.rooms import Rooms
from shards.storage import remote, store
from shards.storage.retries import Limits
from tests.cluster.faultproxy import Rule
from tests.numbered import build_numbers
from tests.test_promises import words

pytestmark = pytest.mark.s3

DATA = hashlib.shake_256(b"faults").digest(400_000)
QUICK = Limits(
    tries=3,
    first_wait_seconds=0.02,
    connect_seconds=1,
    read_seconds=0.3,
    budget_seconds=5,
)
"""So that a test does not wait as a user would."""

READ_FAULTS = [
    Rule("refuse"),
    Rule("status", status=503),
    Rule("status", status=500),
    Rule("status", status=503, body="<html>busy</html>"),
    Rule("status", status=429),
    Rule("status", status=403),
    Rule("reset"),
    Rule("truncate"),
    Rule("truncate", at=0.0),
    Rule("short"),
    Rule("stall"),
    Rule("stall_head"),
    Rule("stall_reply"),
    Rule("latency", seconds=0.2),
    Rule("rate", bytes_per_second=1e6),
]
WRITE_FAULTS = [
    Rule("refuse"),
    Rule("status", status=503),
    Rule("status", status=429),
    Rule("status", status=403),
    Rule("drop_upload"),
    Rule("lost_ack"),
    Rule("stall_head"),
    Rule("stall_reply"),
]


def named(rule):
    more = f"-{rule.status}" if rule.fault == "status" else ""
    return f"{rule.fault}{more}{'-html' if rule.body else ''}{'' if rule.at else '-at-once'}"


def made(rule, **changes):
    return Rule(**{name: getattr(rule, name) for name in Rule.__dataclass_fields__} | changes)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(store, "LIMITS", QUICK)


@pytest.fixture
def file(faulty_folder):
    where = store.join(faulty_folder, "a.bin")
    store.write_bytes(where, DATA)
    return where


@pytest.mark.parametrize("rule", READ_FAULTS, ids=named)
def test_a_fault_once_in_a_read_does_not_show(file, fault_proxy, rule):
    fault_proxy.rules(made(rule, method="GET", times=1))
    before = store.counters.snapshot()
    assert store.read_range(file, 1000, 301_000) == DATA[1000:301_000]
    # aiohttp itself asks once more when a connection it had kept is reset before the answer.
    unseen = rule.fault in ("latency", "rate", "refuse")
    assert (store.counters.snapshot() - before).retries == (0 if unseen else 1)
    fault_proxy.rules(made(rule, method="GET", times=1))
    assert store.read_bytes(file) == DATA
    assert sum(fault_proxy.faults.values()) == 1


@pytest.mark.parametrize("rule", READ_FAULTS[:-2], ids=named)
def test_a_fault_that_stays_is_one_line_in_bounded_time(file, fault_proxy, rule):
    fault_proxy.rules(made(rule, method="GET", seconds=30))
    began = time.monotonic()
    told = r"^cannot read bytes 1000 to 301000 of s3://\S+: \S.* \(tried 3 times in \d\.\d s\)$"
    with pytest.raises(StoreError, match=told) as raised:
        store.read_range(file, 1000, 301_000)
    assert time.monotonic() - began < QUICK.budget_seconds + 30
    assert "\n" not in str(raised.value)
    # Nobody below asks again on his own account, but for aiohttp after a reset before the answer.
    assert [each.method for each in fault_proxy.log].count("GET") == (6 if rule.fault == "refuse" else 3)


@pytest.mark.parametrize("rule", WRITE_FAULTS, ids=named)
def test_a_fault_once_in_a_write_does_not_show(file, fault_proxy, rule):
    fault_proxy.rules(made(rule, method="PUT", times=1))
    store.write_bytes(file, DATA[::-1])
    assert sum(fault_proxy.faults.values()) == 1
    fault_proxy.rules()
    assert store.read_bytes(file) == DATA[::-1]


@pytest.mark.parametrize("rule", WRITE_FAULTS, ids=named)
def test_a_fault_that_stays_in_a_write_leaves_the_old_file_or_the_new_one(file, fault_proxy, rule):
    fault_proxy.rules(made(rule, method="PUT", seconds=30))
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"^cannot write s3://\S+: \S"):
        store.write_bytes(file, DATA[::-1])
    assert time.monotonic() - began < QUICK.budget_seconds + 30
    fault_proxy.rules()
    happened = rule.fault in ("lost_ack", "stall_reply")
    assert store.read_bytes(file) == (DATA[::-1] if happened else DATA)


def test_a_write_whose_bits_flip_on_the_way_is_refused_by_the_server(object_store, file, monkeypatch):
    if object_store.kind == "moto":
        pytest.skip("moto takes any checksum")
    monkeypatch.setattr(remote, "b64encode", lambda digest: b"AAAAAAAAAAAAAAAAAAAAAA==")
    with pytest.raises(StoreError, match=r"^cannot write s3://\S+: BadDigest \(tried 3 times"):
        store.write_bytes(file, DATA[::-1])
    assert store.read_bytes(file) == DATA


def test_a_lost_part_of_a_large_upload_is_sent_alone_again(faulty_folder, fault_proxy, monkeypatch):
    monkeypatch.setattr(store, "LIMITS", Limits())
    data = os.urandom(2**20) * 101
    fault_proxy.rules(Rule("refuse", method="PUT", path="partNumber=2", times=1))
    store.write_bytes(f"{faulty_folder}/large.bin", data)
    sent = Counter(
        each.path.partition("partNumber=")[2][:1] for each in fault_proxy.log if "partN" in each.path
    )
    assert sent == {"1": 1, "2": 2, "3": 1}
    assert store.read_bytes(f"{faulty_folder}/large.bin") == data


def test_a_large_upload_that_fails_leaves_nothing(faulty_folder, fault_proxy, monkeypatch):
    monkeypatch.setattr(store, "LIMITS", Limits(tries=1))
    fault_proxy.rules(Rule("status", method="PUT", path="partNumber=3"))
    with pytest.raises(StoreError, match=r"^cannot write s3://"):
        store.write_bytes(f"{faulty_folder}/large.bin", bytes(101 * 2**20))
    fault_proxy.rules()
    assert not store.exists(f"{faulty_folder}/large.bin")


@pytest.mark.parametrize("rule", [Rule("refuse"), Rule("status"), Rule("stall_head")], ids=named)
def test_listing_looking_and_removing_ride_out_a_fault(file, faulty_folder, fault_proxy, rule):
    fault_proxy.rules(made(rule, times=1))
    assert store.sizes(faulty_folder) == {"a.bin": len(DATA)}
    fault_proxy.rules(made(rule, times=1))
    assert store.exists(file)
    fault_proxy.rules(made(rule, times=1))
    store.make_folder(faulty_folder)
    fault_proxy.rules(made(rule, method="DELETE", times=1))
    store.remove(file)
    assert not store.exists(file)


def test_a_flipped_bit_is_seen_by_its_checksum_and_read_again(faulty_folder, fault_proxy):
    index = build(Rooms(60, 16), faulty_folder, size=16, shard_images=30, block_samples=10, workers=1)
    row = indexes.load_blocks(faulty_folder, index)[0]
    where, stop, wanted = store.join(faulty_folder, index.shards[0].name), int(row["bytes"]), int(row["sum"])
    fault_proxy.rules(Rule("corrupt", method="GET", times=1))
    assert block_sum(store.read_range(where, 0, stop)) != wanted  # no client sees it
    fault_proxy.rules(Rule("corrupt", method="GET", times=1))
    data = store.read_range(where, 0, stop, check=lambda data: block_sum(data) == wanted)
    assert block_sum(data) == wanted
    fault_proxy.rules(Rule("corrupt", method="GET", path="shard-000001", times=1))
    assert list(verify(faulty_folder)) == []
    assert fault_proxy.faults == {"corrupt": 1}


def test_a_copy_through_faults_is_whole(faulty_folder, fault_proxy, tmp_path):
    source = str(tmp_path / "set")
    build(Rooms(200, 16), source, size=16, shard_images=20, workers=1)
    faults = [
        Rule("corrupt", method="GET", path=r"\.tar", times=1),
        Rule("drop_upload", method="PUT", chance=0.2),
        Rule("status", chance=0.1),
        Rule("truncate", method="GET", chance=0.2),
    ]
    fault_proxy.rules(*faults, seed=1)
    copy(source, faulty_folder)
    copy(faulty_folder, str(tmp_path / "back"))
    assert list(verify(str(tmp_path / "back"))) == []
    assert sum(fault_proxy.faults.values()) >= 5


@pytest.mark.parametrize("faults", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_faults_between_the_feed_and_the_store_change_no_picture(
    faulty_folder, fault_proxy, tmp_path, monkeypatch, faults
):
    # Half of all reads fail, so that with the tries of every day some block would fail them all.
    calm = Limits(tries=30, first_wait_seconds=0.01, longest_wait_seconds=0.5, read_seconds=0.5)
    monkeypatch.setattr(store, "LIMITS", calm)
    copy(build_numbers(tmp_path / "set", 800, shard=300, block=10), faulty_folder)
    fault_proxy.rules(*rules(0.5), seed=2)
    found = serve_epochs(faulty_folder, fault_proxy, faults=faults)
    print(f"\n{dict(found)}; faults: {fault_proxy.faults}")
    assert count_faults(fault_proxy) >= faults
    assert found["right"] == found["epochs"] * 25 * 32
    assert found["wrong"] == found["lost"] == found["hangs"] == found["replaced"] == 0


def test_beyond_the_budget_training_stops_with_a_line_that_names_the_object(
    rooms16, faulty_folder, fault_proxy, tmp_path, capfd
):
    copy(rooms16, faulty_folder)
    fault_proxy.rules(Rule("status", method="GET", path=r"shard-000001\.tar"))
    assert main(words(faulty_folder, tmp_path / "run")) == 2
    (told,) = [line for line in capfd.readouterr().err.splitlines() if line]
    assert re.fullmatch(
        rf"error: cannot read bytes \d+ to \d+ of {faulty_folder}/shard-000001.tar: SlowDown.* 3 times.*",
        told,
    )
