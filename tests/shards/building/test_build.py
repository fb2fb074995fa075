"""Promises of a build: the same bytes from any number of workers, read by any tool, and nothing half done."""

import gc
import hashlib
import io
import json
import subprocess

import fsspec
import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from shards import ShardsError
from shards.building.build import build, find_built, plan_cut
from shards.dataset import index as indexes
from shards.dataset.adopt import reindex
from shards.dataset.describe import describe, read_sample
from shards.dataset.verify import verify
from shards.errors import StoreError
from shards.pictures.codec import decode_into
from shards.sources.drawn.rooms import Rooms
from shards.sources.own.folder import Folder
from shards.sources.published.digits import Digits
from shards.storage import store
from shards.tars.records import PIXELS_OFFSET, parse_records
from tests.shards.sources.odd_sources import Boastful, Deadly

GOLDEN_SHARD = "cf1b94853f2163206779e1c07e0954d820a978ffef2aee7d35fb3a130ad5bd23"
"""sha256 of a shard of rooms 0 to 7 of seed 0 at 16 pixels, npy."""


def contents(url):
    return {name: store.read_bytes(store.join(url, name)) for name in store.sizes(url)}


def save_picture(path, image=None, form=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image or Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 20).convert("RGB")
    image.save(path, form, **options)


def test_the_bytes_are_a_specification(tmp_path):
    index = build(Rooms(8, 16), str(tmp_path), size=16, workers=1)
    assert index.shards[0].sha256 == GOLDEN_SHARD
    data = (tmp_path / "shard-000000.tar").read_bytes()
    assert hashlib.sha256(data).hexdigest() == GOLDEN_SHARD


def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    for workers in (1, 2, 3):
        build(Rooms(50, 16), str(tmp_path / str(workers)), size=16, shard_images=8, workers=workers)
    one, two, three = (contents(str(tmp_path / name)) for name in "123")
    assert len(one) == 9
    assert one == two == three


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("encoding", ["npy", "png", "jpg", "webp"])
def test_webdataset_reads_our_tars(tmp_path, encoding):
    build(Rooms(20, 16), str(tmp_path), size=16, encoding=encoding, shard_images=8, workers=1)
    tars = [str(tmp_path / f"shard-{shard:06d}.tar") for shard in range(3)]
    samples = list(wds.WebDataset(tars, shardshuffle=False, empty_check=False))
    gc.collect()  # webdataset leaves its files open: let the warning fall here, where it is ignored
    assert [sample["__key__"] for sample in samples] == [f"{position:08d}" for position in range(20)]
    out = np.zeros((16, 16, 3), np.uint8)
    for position, sample in enumerate(samples):
        wanted = Rooms(20, 16).item(position)
        decode_into(sample[encoding], out)
        assert np.abs(out.astype(int) - wanted.image).mean() < (1e-9 if encoding in ("npy", "png") else 12)
        assert json.loads(sample["json"]) == wanted.meta | {"name": wanted.name}


def test_npy_datasets_have_one_stride_and_pixels_at_one_place(tmp_path):
    url = str(tmp_path)
    index = build(Digits(), url, size=8, shard_images=600, workers=1)
    shard = store.read_bytes(store.join(url, index.shards[1].name))
    rows = np.frombuffer(shard, np.uint8, 600 * index.record_bytes).reshape(600, index.record_bytes)
    pixels = rows[:, PIXELS_OFFSET : PIXELS_OFFSET + 8 * 8 * 3].reshape(600, 8, 8, 3)
    np.testing.assert_array_equal(pixels[7], Digits().item(607).image)
    assert {record.stop - record.start for record in parse_records(shard)} == {index.record_bytes}


def test_lossy_datasets_have_no_stride(tmp_path):
    assert build(Rooms(5, 16), str(tmp_path), size=16, encoding="jpg", workers=1).record_bytes == 0


def test_blocks_and_shards_may_be_ragged(tmp_path):
    index = build(Rooms(11, 8), str(tmp_path), size=8, shard_images=5, block_samples=3, workers=1)
    assert [shard.samples for shard in index.shards] == [5, 5, 1]
    assert index.block_counts().tolist() == [3, 2, 3, 2, 1]
    assert list(verify(str(tmp_path), decode=True)) == []


def test_a_dataset_in_memory_reads_back():
    url = "memory://shards-test/set"
    index = build(Rooms(12, 8), url, size=8, shard_images=5, block_samples=2)
    assert indexes.load(url) == index
    indexes.check_listing(url, index)
    assert list(verify(url, decode=True)) == []
    np.testing.assert_array_equal(read_sample(url, index, position=11)[0], Rooms(12, 8).item(11).image)
    fsspec.filesystem("memory").rm("/shards-test", recursive=True)


def test_labels_classes_and_names_are_kept(tmp_path):
    for name in ("in/cat/1.png", "in/dog/2.png"):
        save_picture(tmp_path / name)
    url = str(tmp_path / "out")
    index = build(Folder(str(tmp_path / "in")), url, size=8, encoding="png", workers=1)
    assert index.classes == ("cat", "dog")
    assert [read_sample(url, index, position=n)[1] for n in (0, 1)] == [
        {"label": 0, "name": "cat/1.png"},
        {"label": 1, "name": "dog/2.png"},
    ]


def test_a_folder_of_every_mode_and_shape_builds(tmp_path):
    grey = Image.new("L", (50, 20), 128)
    exif = Image.Exif()
    exif[0x0112] = 6
    save_picture(tmp_path / "in" / "rgba.png", grey.convert("RGBA"))
    save_picture(tmp_path / "in" / "palette.png", grey.convert("P"))
    save_picture(tmp_path / "in" / "grey.png", grey)
    save_picture(tmp_path / "in" / "deep.png", Image.new("I;16", (9, 99), 128 * 257))
    save_picture(tmp_path / "in" / "cmyk.jpg", Image.new("CMYK", (32, 32), (0, 0, 0, 127)))
    save_picture(tmp_path / "in" / "turned.jpg", grey, exif=exif)
    save_picture(tmp_path / "in" / "moving.gif", grey, save_all=True, append_images=[grey.point(lambda v: 0)])
    save_picture(tmp_path / "in" / "jpeg-called.png", grey, "JPEG")
    url = str(tmp_path / "out")
    index = build(Folder(str(tmp_path / "in")), url, size=16, workers=1)
    assert index.samples == 8
    for position in range(8):
        pixels, meta = read_sample(url, index, position=position)
        assert np.abs(pixels.astype(int) - 128).max() <= 3, meta["name"]


def broken_folder(top, good=3):
    for number in range(good):
        save_picture(top / f"good-{number}.png")
    save_picture(top / "cut.jpg")
    (top / "cut.jpg").write_bytes((top / "cut.jpg").read_bytes()[:900])
    (top / "text.png").write_bytes(b"hello")
    (top / "empty.png").write_bytes(b"")
    return Folder(str(top))


def test_broken_pictures_are_left_out_counted_and_named(tmp_path):
    source, url, told = broken_folder(tmp_path / "in"), str(tmp_path / "out"), []
    index = build(source, url, size=8, shard_images=2, workers=2, on_failures=told.extend)
    assert index.samples == 3
    assert [(failure.name, failure.reason) for failure in told] == [
        ("cut.jpg", "truncated"),
        ("empty.png", "not a picture"),
        ("text.png", "not a picture"),
    ]
    written = json.loads((tmp_path / "out" / "failures.json").read_bytes())
    assert written["counts"] == {"not a picture": 2, "truncated": 1}
    assert [failure["position"] for failure in written["failures"]] == [0, 1, 5]
    # Shard 0 would have been cut.jpg and empty.png alone: its number stays free.
    assert [(shard.name, shard.samples) for shard in index.shards] == [
        ("shard-000001.tar", 2),
        ("shard-000002.tar", 1),
    ]
    assert [read_sample(url, index, position=n)[1]["name"] for n in range(3)] == [
        "good-0.png",
        "good-1.png",
        "good-2.png",
    ]


def test_a_file_that_goes_away_is_a_failure_of_its_own(tmp_path):
    source = broken_folder(tmp_path / "in")
    (tmp_path / "in" / "good-1.png").unlink()
    told = []
    build(source, str(tmp_path / "out"), size=8, workers=1, max_bad=1.0, on_failures=told.extend)
    assert ("position 3", "missing") in [(failure.name, failure.reason) for failure in told]


def test_no_usable_picture_at_all_is_an_error_and_leaves_no_index(tmp_path):
    url = str(tmp_path / "out")
    with pytest.raises(ShardsError, match=r"none of the 3 pictures is usable; see failures\.json"):
        build(broken_folder(tmp_path / "in", good=0), url, size=8, workers=1)
    assert list(store.sizes(url)) == ["build.begun.json", "failures.json"]
    assert build(broken_folder(tmp_path / "in"), url, size=8, workers=1).samples == 3


def test_a_source_that_breaks_its_promise_is_told(tmp_path):
    with pytest.raises(ShardsError, match="its JSON takes 611 bytes, the source promised 10"):
        build(Boastful(), str(tmp_path), size=8, workers=1)


def test_a_worker_that_is_killed_is_told_and_nothing_hangs(tmp_path):
    with pytest.raises(ShardsError, match=r"one of 2 workers was killed, .*; try fewer --workers"):
        build(Deadly(), str(tmp_path), size=8, shard_images=1, workers=2)
    assert store.sizes(str(tmp_path)).keys() == {"build.begun.json"}


def test_the_same_build_again_does_nothing(tmp_path):
    url = str(tmp_path)
    first = build(Rooms(5, 8), url, size=8, workers=1)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert build(Rooms(5, 8), url, size=8, workers=1) == first
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert find_built(Rooms(5, 8), url, plan_cut(size=8)) == first


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (Rooms(6, 8), {"size": 8}, r"images=5, not 6; choose another folder, or --overwrite"),
        (Rooms(5, 8, seed=1), {"size": 8}, "seed=0, not 1"),
        (Rooms(5, 16), {"size": 16, "block_samples": 1365}, "size=8, not 16"),
        (Rooms(5, 8), {"size": 8, "encoding": "png"}, 'encoding="npy", not "png"'),
        (Digits(), {"size": 8}, 'source="rooms", not "digits"'),
    ],
)
def test_another_build_is_not_written_over(tmp_path, source, settings, message):
    build(Rooms(5, 8), str(tmp_path), size=8, workers=1)
    before = contents(str(tmp_path))
    with pytest.raises(ShardsError, match=message):
        build(source, str(tmp_path), **settings, workers=1)
    assert contents(str(tmp_path)) == before


def test_overwriting_leaves_nothing_of_the_old_build(tmp_path):
    url = str(tmp_path / "a")
    build(Rooms(20, 8), url, size=8, shard_images=4, workers=1)
    build(Rooms(6, 8), url, size=8, shard_images=4, workers=1, overwrite=True)
    build(Rooms(6, 8), str(tmp_path / "b"), size=8, shard_images=4, workers=1)
    assert contents(url) == contents(str(tmp_path / "b"))


def test_a_build_that_fails_leaves_no_index_and_can_be_started_again(tmp_path, monkeypatch):
    url, write = str(tmp_path), store.write_bytes
    build(Rooms(5, 8), url, size=8, workers=1)

    def full(where, data):
        if where.endswith("shard-000001.tar"):
            raise StoreError(f"cannot write {where}: No space left on device")
        write(where, data)

    monkeypatch.setattr(store, "write_bytes", full)
    with pytest.raises(ShardsError, match="No space left"):
        build(Rooms(10, 8), url, size=8, shard_images=4, workers=1, overwrite=True)
    with pytest.raises(ShardsError, match=r"has tars but no index\.json"):
        indexes.load(url)
    monkeypatch.undo()
    assert build(Rooms(10, 8), url, size=8, shard_images=4, workers=1).samples == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 3}, r"size=3 is outside \[4, 1024\]; give one inside"),
        ({"size": 1025}, "size=1025 is outside"),
        ({"encoding": "bmp"}, "encoding='bmp' is not known; choose one of npy, png, jpg, webp"),
        ({"quality": 0}, "quality=0 is outside"),
        ({"shard_images": 0}, "shard_images=0 is outside"),
        ({"block_samples": 0}, "block_images=0 is outside"),
        ({"workers": 0}, "workers=0 is outside"),
    ],
)
def test_a_wrong_setting_is_one_line_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(ShardsError, match=message):
        build(Rooms(5, 8), str(tmp_path / "out"), **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("size", "shard_images", "block"), [(8, 2048, 1365), (64, 2048, 21), (1024, 170, 1)])
def test_defaults_bound_memory_at_every_size(size, shard_images, block):
    cut = plan_cut(size=size)
    assert (cut.shard_images, cut.block_samples) == (shard_images, block)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot make the folder .*: "):
        build(Rooms(5, 8), str(tmp_path / "file" / "out"), size=8, workers=1)


def test_an_index_made_again_is_the_same(tmp_path):
    for encoding in ("npy", "webp"):
        url = str(tmp_path / encoding)
        index = build(Digits(), url, size=8, encoding=encoding, shard_images=900, workers=1)
        before = contents(url)
        reindex(url)
        assert contents(url) == before
        store.remove(store.join(url, "index.json"))
        again = reindex(url)
        assert (again.shards, again.classes, again.record_bytes) == (
            index.shards,
            index.classes,
            index.record_bytes,
        )
        assert again.blocks_sha256 == index.blocks_sha256


def test_tars_of_gnu_tar_and_of_webdataset_can_be_indexed(tmp_path):
    images = [Rooms(3, 16).item(position).image for position in range(3)]
    with wds.TarWriter(str(tmp_path / "wds-0.tar")) as writer:
        for number, image in enumerate(images):
            stream = io.BytesIO()
            np.save(stream, image)
            writer.write({"__key__": f"a/{number}", "npy": stream.getvalue(), "json": {"label": number}})
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        np.save(tmp_path / "in" / f"{number}.npy", image)
    names = [f"{number}.npy" for number in range(3)]
    subprocess.run(["tar", "cf", tmp_path / "gnu.tar", "-C", tmp_path / "in", *names], check=True)
    index = reindex(str(tmp_path), block_samples=2)
    assert (index.samples, index.image_size, index.encoding) == (6, 16, "npy")
    assert (index.record_bytes, index.classes) == (0, ("0", "1", "2"))
    assert list(verify(str(tmp_path), decode=True)) == []
    for position in range(6):
        np.testing.assert_array_equal(
            read_sample(str(tmp_path), index, position=position)[0], images[position % 3]
        )


@pytest.mark.parametrize(
    ("sizes", "encodings", "message"),
    [((8, 16), ("npy", "npy"), "npy 8 x 8, npy 16 x 16"), ((8, 8), ("npy", "png"), "npy 8 x 8, png 8 x 8")],
)
def test_tars_of_different_pictures_are_refused(tmp_path, sizes, encodings, message):
    for name, size, encoding in zip("ab", sizes, encodings, strict=True):
        build(Rooms(2, size), str(tmp_path / name), size=size, encoding=encoding, workers=1)
        (tmp_path / name / "shard-000000.tar").rename(tmp_path / f"{name}.tar")
    with pytest.raises(ShardsError, match=message):
        reindex(str(tmp_path))


def test_a_folder_that_cannot_be_indexed_is_one_line(tmp_path):
    with pytest.raises(ShardsError, match=r"holds no \.tar files"):
        reindex(str(tmp_path))
    (tmp_path / "a.tar").write_bytes(bytes(10240))
    with pytest.raises(ShardsError, match=r"a\.tar holds no samples"):
        reindex(str(tmp_path))
    (tmp_path / "text.txt").write_bytes(b"x")
    subprocess.run(["tar", "cf", tmp_path / "a.tar", "-C", tmp_path, "text.txt"], check=True)
    with pytest.raises(ShardsError, match="sample text has no image that we read"):
        reindex(str(tmp_path))


def test_what_is_marked_as_removed_stays_so_when_indexed_again(tmp_path):
    url = str(tmp_path)
    index = build(Rooms(6, 8), url, size=8, workers=1)
    where = store.join(url, "index.json")
    fields = json.loads(store.read_bytes(where))
    fields["shards"][0]["removed"] = [2, 4]
    store.write_bytes(where, json.dumps(fields).encode())
    assert reindex(url).kept == index.samples - 2


def test_the_description_says_what_there_is(tmp_path):
    url = str(tmp_path)
    lines = describe(url, build(Digits(), url, size=8, workers=1)).splitlines()
    told = {line[:10].strip(): line[10:] for line in lines}
    assert told["images"] == "1,797"
    assert told["classes"] == "10 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"
    assert told["record"] == "2048 bytes"


def test_temporary_files_are_gone_after_a_build(tmp_path):
    build(Rooms(9, 8), str(tmp_path), size=8, shard_images=3, workers=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "blocks.npy",
        "index.json",
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
    ]
