"""Promises of the bench: true counts, and the limit named as the rates say."""

from dataclasses import replace

import pytest

from shards import ShardsError
from shards.__main__ import main
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.bench import Rate, Report, bench
from shards.dataset.bench_report import limit
from shards.sources.drawn.rooms import Rooms
from shards.storage import store
from tests.cluster.faultproxy import Rule


@pytest.fixture(scope="module", params=["npy", "jpg"])
def dataset(request, tmp_path_factory):
    url = str(tmp_path_factory.mktemp(request.param) / "set")
    build(Rooms(50, 16), url, size=16, encoding=request.param, shard_images=20, block_samples=8, workers=1)
    return url


def test_every_block_is_read_cold_once_and_the_rates_are_counts_over_time(dataset):
    report = bench(dataset, seconds=0.2, threads=3)
    assert report.cold is not None
    assert (report.cold.blocks, report.cold.images) == (8, 50)
    assert report.doubled is None
    for rate in (report.cold, report.reading, report.decoding, report.together):
        assert len(rate.latencies) == rate.blocks
        assert rate.images_per_second == rate.images / rate.seconds
        assert rate.latency(0.0) <= rate.latency(0.5) <= rate.latency(0.95) <= rate.latency(1.0)
        assert rate.images <= 8 * rate.blocks
    assert 0.05 <= report.reading.seconds < 5


def test_the_command_prints_rates_and_limit(dataset, capsys):
    assert main(["bench", dataset, "--seconds", "0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "cold reads",
        "warm reads",
        "decoding",
        "together",
        "limit",
    ]
    assert "blocks/s" in lines[0]
    assert "p95" in lines[1]


@pytest.mark.s3
def test_an_object_store_is_measured_with_more_requests_too(s3_folder, capsys):
    build(Rooms(50, 16), s3_folder, size=16, shard_images=20, block_samples=8, workers=1)
    before = store.counters.snapshot()
    report = bench(s3_folder, seconds=0.8, requests=4)
    told = store.counters.snapshot() - before
    assert report.cold is None
    assert report.doubled is not None
    read = report.reading.blocks + report.doubled.blocks + report.together.blocks
    assert read <= told.requests <= read + 8 + 4 + 10, "and those that fill the memory, and those in flight"
    assert main(["bench", s3_folder, "--seconds", "0.2"]) == 0
    assert "with 32 requests" in capsys.readouterr().out


@pytest.mark.s3
def test_slow_answers_are_told_as_latency(faulty_folder, fault_proxy):
    build(Rooms(50, 16), faulty_folder, size=16, shard_images=20, block_samples=8, workers=1)
    fault_proxy.rules(Rule("latency", seconds=0.05))
    report = bench(faulty_folder, seconds=1.2, requests=2)
    assert report.reading.latency(0.5) >= 0.05
    assert limit(report).startswith("storage latency: twice the requests gave")


def rate(images_per_second, cpu=0.1):
    return Rate(10, images_per_second, 1000, 1.0, cpu, (0.1,))


REMOTE = Report("jpg", 16, 2, 4, None, rate(100), rate(190), rate(1000), rate(90))
LOCAL = Report("npy", 16, 2, 2, rate(50), rate(2000), None, rate(1000), rate(800))


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (REMOTE, "storage latency: twice the requests gave 1.9 times as much; try --requests 32"),
        (replace(REMOTE, doubled=rate(101)), "storage bandwidth: twice the requests gave 1.0 times as much"),
        (replace(REMOTE, doubled=rate(101), reading=rate(100, 0.9)), "the storage client, which fills a CPU"),
        (replace(REMOTE, decoding=rate(50)), "decoding: try --threads 4, or npy"),
        (replace(REMOTE, decoding=rate(50), threads=4), "decoding: 4 threads on 4 CPUs; try npy"),
        (
            LOCAL,
            "the disk while the files are not in memory, and then decoding: 2 threads on 2 CPUs, and npy",
        ),
        (replace(LOCAL, cold=None, cpus=8), "decoding: try --threads 8"),
        (replace(LOCAL, cold=rate(900), reading=rate(999)), "reading, even from memory: try more --threads"),
    ],
)
def test_the_limit_is_what_is_slowest(report, told):
    assert limit(report).startswith(told)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0}, r"--seconds 0 is outside \(0, 3600\]; give one inside"),
        ({"seconds": float("nan")}, "--seconds nan is outside"),
        ({"requests": 0}, r"--requests 0 is outside \[1, 1024\]; give one inside"),
        ({"threads": 10**6}, "--threads 1000000 is outside"),
    ],
)
def test_a_wrong_setting_is_one_line(dataset, settings, message):
    with pytest.raises(ShardsError, match=message):
        bench(dataset, **settings)


def test_damage_and_an_empty_dataset_are_one_line(tmp_path):
    url = str(tmp_path)
    index = build(Rooms(8, 16), url, size=16, workers=1)
    gone = replace(index, shards=tuple(replace(each, removed=tuple(range(8))) for each in index.shards))
    where = store.join(url, "index.json")
    store.write_bytes(where, indexes.dump(gone))
    with pytest.raises(ShardsError, match="every sample is marked as removed"):
        bench(url)
    store.write_bytes(where, indexes.dump(index))
    store.write_bytes(store.join(url, "shard-000000.tar"), bytes(index.bytes))
    with pytest.raises(ShardsError, match=r"cannot read bytes 0 to .*do not match their checksum"):
        bench(url, seconds=0.1)
