"""The exact order in other people's loops: the same global batches by every reader, on any number of ranks
and workers, stopped and gone on with anywhere."""

import pickle
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest
import webdataset as wds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.data import Batch, ExactOrder, Samples, exact_order
from dcgan_dist.stream.plan import Plan
from shards.__main__ import main
from shards.building.build import build
from shards.dataset.adopt import reindex
from shards.errors import ShardsError
from shards.sources.drawn.rooms import Rooms
from shards.storage import store
from tests.shards.dataset.test_samples import by_webdataset

BATCH, SEED = 12, 7


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures of one size, encoded."""
    out = str(tmp_path_factory.mktemp("rooms") / "set")
    build(Rooms(100, size=16), out, size=16, encoding="jpg", shard_images=40, block_samples=7, workers=1)
    return out


@pytest.fixture(scope="module")
def anything(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Samples of any kind."""
    out = tmp_path_factory.mktemp("anything")
    by_webdataset(out)
    assert main(["index", str(out), "--samples", "--block-images", "3"]) == 0
    return str(out)


@pytest.fixture(params=["rooms", "anything"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


Read = Callable[[str, int, int, int], Iterator[list[str]]]
"""Of a dataset, from a step on, one rank of several: the keys of its rows of each batch."""


def plainly(url: str, first: int, rank: int, ranks: int) -> Iterator[list[str]]:
    order = ExactOrder(url, BATCH, SEED, rank=rank, ranks=ranks)
    order.load_state_dict({"step": first})
    for batch in order:
        assert order.state_dict() == {"step": batch.step + 1}
        yield batch.keys


def by_workers(url: str, first: int, rank: int, ranks: int) -> Iterator[list[str]]:
    order = ExactOrder(url, BATCH, SEED, rank=rank, ranks=ranks)
    order.load_state_dict({"step": first})
    loader: DataLoader[Batch] = DataLoader(order, batch_size=None, num_workers=2)
    for number, batch in enumerate(loader):
        assert batch.step == first + number
        yield batch.keys


def by_pipeline(url: str, first: int, rank: int, ranks: int) -> Iterator[list[str]]:
    samples = exact_order(url, BATCH, SEED, step=first, rank=rank, ranks=ranks)
    pipeline = wds.DataPipeline(samples, wds.decode("rgb8"), wds.to_tuple("__key__", "jpg"))
    rows: list[str] = []
    for key, picture in pipeline:
        assert picture.dtype == np.uint8
        rows.append(key)
        if len(rows) == BATCH // ranks:
            yield rows
            rows = []


def by_grain(url: str, first: int, rank: int, ranks: int) -> Iterator[list[str]]:
    source = ExactOrder(url, BATCH, SEED).in_order(epochs=4)
    dataset = grain.MapDataset.source(source).batch(BATCH, batch_fn=lambda samples: [s.key for s in samples])
    rows = BATCH // ranks
    for step in range(first, len(dataset)):
        yield dataset[step][rank * rows : (rank + 1) * rows]


READERS: dict[str, Read] = {
    "plain": plainly,
    "DataLoader": by_workers,
    "webdataset": by_pipeline,
    "grain": by_grain,
}


def joined(parts: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(parts))


def taken(read: Read, url: str, first: int, stop: int, ranks: int) -> list[list[str]]:
    """The keys of the global batches of some steps, rank after rank."""
    readers = [read(url, first, rank, ranks) for rank in range(ranks)]
    return [joined(next(reader) for reader in readers) for _ in range(first, stop)]


@pytest.mark.parametrize("name", READERS)
def test_every_reader_gives_the_same_batches_stopped_and_gone_on_with_anywhere(url: str, name: str) -> None:
    expected = taken(plainly, url, 0, 10, 1)
    per_epoch = len(Samples(url)) // BATCH
    assert per_epoch < 10, "over the border of an epoch"
    for begin in range(0, 10 - per_epoch, per_epoch):
        served = joined(expected[begin : begin + per_epoch])
        assert len(set(served)) == len(served) == per_epoch * BATCH
    ways = [(1, 3), (4, 5), (2, 7), (3, 10)] if name != "DataLoader" else [(2, 5), (1, 10)]
    first, found = 0, []
    for ranks, stop in ways:
        found += taken(READERS[name], url, first, stop, ranks)
        first = stop
    assert found == expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_stops_on_any_ranks_change_nothing(rooms: str, data: st.DataObject) -> None:
    cuts = sorted({0, 9, *data.draw(st.lists(st.integers(1, 8), max_size=3))})
    found = []
    for first, stop in pairwise(cuts):
        ranks = data.draw(st.sampled_from([1, 2, 3, 4]))
        name = data.draw(st.sampled_from(["plain", "webdataset", "grain"]))
        found += taken(READERS[name], rooms, first, stop, ranks)
    assert found == taken(plainly, rooms, 0, 9, 1)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_is_saved_and_goes_on(url: str, workers: int) -> None:
    expected = taken(plainly, url, 0, 9, 1)

    def loader() -> StatefulDataLoader[Batch]:
        return StatefulDataLoader(ExactOrder(url, BATCH, SEED), batch_size=None, num_workers=workers)

    found, state = [], None
    for count in (4, 1, 4):
        reader = loader()
        if state is not None:
            reader.load_state_dict(pickle.loads(pickle.dumps(state)))
        batches = iter(reader)
        found += [next(batches) for _ in range(count)]
        state = reader.state_dict()
        del batches, reader
    assert [batch.keys for batch in found] == expected
    assert [batch.step for batch in found] == list(range(9))


def test_a_batch_has_what_the_trainer_sees_and_what_belongs_to_it(rooms: str) -> None:
    order = ExactOrder(rooms, BATCH, SEED, steps=3)
    batches = list(order)
    assert [batch.step for batch in batches] == [0, 1, 2]
    samples = {sample.key: sample for sample in Samples(rooms)}
    for batch in (*batches, *pickle.loads(pickle.dumps(batches))):
        assert batch.pictures.shape == (BATCH, 16, 16, 3)
        for at, key in enumerate(batch.keys):
            assert batch[at] == samples[key]
            assert np.array_equal(batch.pictures[at], samples[key].picture)
            assert batch.metas[at]["name"].startswith("room-")
        assert batch.labels.tolist() == [-1] * BATCH
    assert list(order) == []
    order.load_state_dict({"step": 1})
    assert [batch.keys for batch in order] == [batch.keys for batch in batches[1:]]


def test_a_damaged_picture_brings_the_keys_of_the_one_that_stands_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = str(tmp_path / "set")
    build(Rooms(40, size=16), url, size=16, encoding="png", shard_images=20, block_samples=5, workers=1)
    tar = tmp_path / "set" / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(b"IDAT")
    data[at + 6 : at + 12] = bytes(6)
    tar.write_bytes(data)
    reindex(url)
    samples = {sample.key: sample for sample in Samples(url)}
    with pytest.raises(ShardsError):
        _ = samples["00000000"].picture
    keys = []
    for batch in ExactOrder(url, 8, SEED, steps=5):
        for at, key in enumerate(batch.keys):
            assert np.array_equal(batch.pictures[at], samples[key].picture)
        keys += batch.keys
    assert "sample 0 of shard-000000.tar is damaged" in caplog.text
    assert "00000000" not in keys
    assert len(keys) == len(set(keys)) + 1


def test_random_access_is_the_plan_itself() -> None:
    plan = Plan(np.array([5, 0, 3, 7, 7, 1, 4]), batch_images=4, seed=3)
    for epoch in (0, 1):
        found = {}
        for span in plan.epoch(epoch).spans(range(4), first_step=0):
            for step, sample in enumerate(span.samples.tolist(), span.first):
                found[span.lane, step] = span.block, sample
        assert len(found) == 4 * plan.steps_per_epoch
        assert {at: plan.epoch(epoch).at(*at) for at in found} == found


def test_a_pipeline_never_gets_what_it_would_unpickle(tmp_path: Path) -> None:
    files = {"jpg": b"x", "pyd": b"x", "a.pickle": b"x", "pkl.gz": b"x", "txt": b"x"}
    with wds.TarWriter(str(tmp_path / "0.tar")) as out:
        for number in range(4):
            out.write({"__key__": str(number), **files})
    assert main(["index", str(tmp_path), "--samples"]) == 0
    for sample in exact_order(str(tmp_path), 2, 0, steps=2):
        assert set(sample) == {"__key__", "__url__", "jpg", "txt"}
    assert set(Samples(str(tmp_path))[0]) == {"__key__", "__url__", *files}


@pytest.mark.s3
def test_the_order_is_the_same_from_an_object_store(rooms: str, s3_folder: str) -> None:
    assert main(["cp", rooms, store.join(s3_folder, "set")]) == 0
    there = store.join(s3_folder, "set")
    assert taken(by_pipeline, there, 0, 5, 2) + taken(plainly, there, 5, 9, 4) == taken(
        plainly, rooms, 0, 9, 1
    )
    assert main(["index", there, "--samples", "--out", store.join(s3_folder, "index")]) == 0
    keys = [sample.key for sample in Samples(store.join(s3_folder, "index"))]
    assert keys == [sample.key for sample in Samples(rooms)]


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"batch_images": 10, "ranks": 3, "rank": 0}, ConfigError, "does not divide over 3 ranks"),
        ({"batch_images": 10, "ranks": 2, "rank": 2}, ConfigError, "rank=2 must be at least 0 and less than"),
        ({"batch_images": 101}, ConfigError, "is more than the 100 samples"),
        ({"batch_images": 0}, ConfigError, "batch_images=0 must be at least 1"),
    ],
)
def test_a_wrong_use_is_told(rooms: str, given: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        ExactOrder(rooms, seed=0, **given)


def test_a_wrong_state_or_place_is_told(rooms: str, anything: str, tmp_path: Path) -> None:
    for state in ({}, {"step": -1}, {"step": "3"}, {"step": True}):
        with pytest.raises(ValueError, match="is not the state of an order"):
            ExactOrder(rooms, BATCH, 0).load_state_dict(state)  # type: ignore[arg-type]
    with pytest.raises(ShardsError, match="does not exist"):
        ExactOrder(str(tmp_path / "none"), BATCH, 0)
    with pytest.raises(ValueError, match="several sizes"):
        _ = next(iter(ExactOrder(anything, BATCH, 0))).pictures
    with pytest.raises(IndexError):
        Samples(rooms)[100]


def test_reading_needs_no_training(rooms: str) -> None:
    program = f"from dcgan_dist.data import Samples; print(len(Samples({rooms!r})))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "100\n"


def test_the_page_for_readers_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "reader.md").read_text()
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", *["python"] * 5]
    (tmp_path / "tars").mkdir()
    by_webdataset(tmp_path / "tars")
    monkeypatch.chdir(tmp_path)
    for line in blocks[0][1].splitlines():
        assert main(shlex.split(line, comments=True)[3:]) == 0
    capsys.readouterr()
    program = "\n".join(text for kind, text in blocks if kind == "python")
    exec(compile(program, "reader.md", "exec"), {"__name__": "reader"})
    told = capsys.readouterr().out.splitlines()
    assert "{'step': 4}" in told
    assert told[-1] == next(batch for batch in ExactOrder("tars", 12, 0) if batch.step == 3).keys[0]
