"""ImageNet's tar of tars and foreign webdataset tars: read where they lie, odd pictures and all."""

import gc
import io
import json
import pickle
import tarfile

import fsspec
import numpy as np
import pytest
import webdataset as wds
from PIL import Image
from scipy.io import savemat

from shards.__main__ import main
from shards.building.build import build
from shards.dataset.describe import read_sample
from shards.dataset.index import load
from shards.errors import ImageError, ShardsError
from shards.pictures.codec import decode
from shards.sources.drawn.rooms import Rooms
from shards.sources.own.webdataset import Webdataset, _array
from shards.sources.published.imagenet import ImageNet
from shards.tars import members

WNIDS = ("n02119789", "n01440764", "n07747607")
"""As in the real tar, not in sorted order."""


def picture(position, form="JPEG", mode="RGB"):
    stream = io.BytesIO()
    Image.fromarray(Rooms(10**6, 24).item(position).image).convert(mode).save(stream, form)
    return stream.getvalue()


def tar_of(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def imagenet(**odd):
    """The files of each class, with a CMYK picture and a PNG called JPEG."""
    classes = {}
    for number, wnid in enumerate(WNIDS):
        names = [f"{wnid}_{10 * number + n}.JPEG" for n in range(4)]
        classes[wnid] = {name: picture(10 * number + n) for n, name in enumerate(names)}
    classes[WNIDS[0]][f"{WNIDS[0]}_1.JPEG"] = picture(1, mode="CMYK")
    classes[WNIDS[1]][f"{WNIDS[1]}_12.JPEG"] = picture(12, "PNG")
    for wnid, files in odd.items():
        classes[wnid] |= files
    return classes


def write_imagenet(path, classes):
    path.write_bytes(tar_of({f"{wnid}.tar": tar_of(files) for wnid, files in classes.items()}))
    return str(path)


def test_the_tar_of_tars_is_read_exactly(tmp_path):
    classes = imagenet()
    url = write_imagenet(tmp_path / "train.tar", classes)
    source = pickle.loads(pickle.dumps(ImageNet(url)))
    assert source.classes == tuple(sorted(WNIDS))
    wanted = [(name, wnid, data) for wnid, files in classes.items() for name, data in files.items()]
    items = [source.item(position) for position in range(source.samples)]
    assert [(item.name, source.classes[item.label], item.image) for item in items] == wanted
    index = build(source, str(tmp_path / "out"), size=24, workers=2, shard_images=5)
    assert index.samples == 12
    for position in (0, 1, 6, 11):
        pixels, meta = read_sample(str(tmp_path / "out"), index, position=position)
        room = Rooms(10**6, 24).item(int(meta["name"][10:-5])).image
        assert np.abs(pixels.astype(int) - room).mean() < 12
        np.testing.assert_array_equal(pixels, decode(wanted[position][2]))


def test_a_picture_in_the_wrong_tar_is_counted(tmp_path, capsys):
    stray = {f"{WNIDS[1]}_99.JPEG": picture(99), f"{WNIDS[0]}_98.JPEG": picture(98)[:400]}
    url = write_imagenet(tmp_path / "train.tar", imagenet(**{WNIDS[0]: stray}))
    assert main(["build", "imagenet", url, str(tmp_path / "out"), "--size", "24", "--workers", "1"]) == 0
    told = capsys.readouterr().err
    assert "left out 2 pictures" in told
    assert f"{WNIDS[1]}_99.JPEG lies in the tar of {WNIDS[0]}" in told
    assert load(str(tmp_path / "out")).samples == 12


def test_a_tar_at_a_url_gives_the_same_dataset_and_is_read_ahead(tmp_path, monkeypatch):
    url = write_imagenet(tmp_path / "train.tar", imagenet())
    fsspec.filesystem("memory").pipe("/imagenet-test/train.tar", (tmp_path / "train.tar").read_bytes())
    asked = []
    read = members.store.read_range
    monkeypatch.setattr(members.store, "read_range", lambda *args: asked.append(args) or read(*args))
    there = ImageNet("memory://imagenet-test/train.tar")
    scanned = len(asked)
    assert scanned <= 8  # one piece for the outer tar and for each inner one, and their ends
    here = ImageNet(url)
    asked.clear()
    assert [there.item(n) for n in range(12)] == [here.item(n) for n in range(12)]
    assert sum(args[0].startswith("memory:") for args in asked) == 2
    assert there.settings() == here.settings()
    fsspec.filesystem("memory").rm("/imagenet-test", recursive=True)


def devkit(folder, truth, ids=(1, 2, 3)):
    """The kit's two files; the last synset is no class of the 1,000."""
    rows = [(number, wnid, 0) for number, wnid in zip(ids, WNIDS, strict=True)] + [(1001, "n00001740", 5)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    synsets = np.array(rows, dtype=kinds)[:, None]
    folder.mkdir()
    savemat(folder / "meta.mat", {"synsets": synsets})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{label}\n" for label in truth))


def test_the_validation_pictures_get_the_labels_of_the_kit(tmp_path):
    files = {f"ILSVRC2012_val_{n:08d}.JPEG": picture(n) for n in (3, 1, 4, 2)}
    (tmp_path / "val.tar").write_bytes(tar_of(files))
    devkit(tmp_path / "data", [3, 1, 2, 3])
    with tarfile.open(tmp_path / "kit.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "data", "ILSVRC2012_devkit_t12/data")
    for kit in ("kit.tar.gz", "data", "."):
        source = ImageNet(str(tmp_path / "val.tar"), "val", devkit=str(tmp_path / kit))
        items = [source.item(position) for position in range(4)]
        assert [item.name for item in items] == sorted(files)
        assert [source.classes[item.label] for item in items] == [WNIDS[n - 1] for n in (3, 1, 2, 3)]
        assert all(item.image == files[item.name] for item in items)


def test_a_kit_that_is_none_is_one_line(tmp_path):
    url = str(tmp_path / "val.tar")
    (tmp_path / "val.tar").write_bytes(tar_of({"ILSVRC2012_val_00000001.JPEG": picture(1)}))
    with pytest.raises(ShardsError, match="have no labels of their own; give --devkit too"):
        ImageNet(url, "val")
    with pytest.raises(ShardsError, match=r"cannot be read .*; give ILSVRC2012_devkit_t12\.tar\.gz"):
        ImageNet(url, "val", devkit=str(tmp_path / "no"))
    with pytest.raises(ShardsError, match=r"has no meta\.mat"):
        ImageNet(url, "val", devkit=url)
    devkit(tmp_path / "one", [1, 2])
    with pytest.raises(ShardsError, match="holds 1 pictures, the development kit tells of 2"):
        ImageNet(url, "val", devkit=str(tmp_path / "one"))
    devkit(tmp_path / "two", [7])
    with pytest.raises(ShardsError, match=r"is not the development kit of ILSVRC 2012 \(KeyError\(7\)\)"):
        ImageNet(url, "val", devkit=str(tmp_path / "two"))
    (tmp_path / "two" / "meta.mat").write_bytes(b"hello")
    with pytest.raises(ShardsError, match=r"is cut short or no \.mat file"):
        ImageNet(url, "val", devkit=str(tmp_path / "two"))
    (tmp_path / "val.tar").write_bytes(tar_of({"train.tar": b""}))
    devkit(tmp_path / "three", [1])
    with pytest.raises(ShardsError, match=r"holds train.tar; give ILSVRC2012_img_val\.tar"):
        ImageNet(url, "val", devkit=str(tmp_path / "three"))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_a_truncated_tar_is_one_line(tmp_path, share):
    url = write_imagenet(tmp_path / "train.tar", imagenet())
    whole = (tmp_path / "train.tar").read_bytes()
    filled = len(whole.rstrip(b"\0"))
    (tmp_path / "train.tar").write_bytes(whole[: int(filled * share)])
    with pytest.raises(ShardsError, match=r"it is cut short"):
        ImageNet(url)


def test_a_tar_cut_between_members_or_damaged_in_a_header_is_one_line(tmp_path):
    whole = tar_of({f"{n}.jpg": picture(n) for n in range(4)})
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        border = tar.getmembers()[2].offset
    path = tmp_path / "a.tar"
    path.write_bytes(whole[:border])
    with pytest.raises(ShardsError, match="the end of the tar is missing; it is cut short"):
        Webdataset(str(path))
    path.write_bytes(whole[:border] + b"#" + whole[border + 1 :])
    with pytest.raises(ShardsError, match=f"byte {border}: the tar header does not match its checksum"):
        Webdataset(str(path))


def test_what_is_not_imagenet_is_one_line(tmp_path):
    with pytest.raises(ShardsError, match=r"train\.tar is not there; give the path or URL of the file"):
        ImageNet(str(tmp_path / "train.tar"))
    (tmp_path / "train.tar").write_bytes(tar_of({"a.jpg": b"x"}))
    with pytest.raises(ShardsError, match=r"holds a\.jpg, not tars of classes"):
        ImageNet(str(tmp_path / "train.tar"))
    (tmp_path / "train.tar").write_bytes(tar_of({}))
    with pytest.raises(ShardsError, match="holds 0 tars of 0 classes"):
        ImageNet(str(tmp_path / "train.tar"))
    write_imagenet(tmp_path / "ILSVRC2012_img_train.tar", imagenet())
    with pytest.raises(ShardsError, match=r"is not the published ILSVRC2012_img_train\.tar"):
        build(ImageNet(str(tmp_path / "ILSVRC2012_img_train.tar")), str(tmp_path / "out"), size=8, workers=1)
    assert not (tmp_path / "out" / "index.json").exists()


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    "shape",
    ["(10000000000000,)", "(-1,)", f"({'9' * 3000},2,3)", "((1,),)", "(", "(" * 300, "-" * 8000 + "1"],
)
def test_an_array_whose_header_lies_is_a_bad_picture(shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(9100).encode() + b"\n"
    with pytest.raises(ImageError, match=r"npy") as error:
        _array(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("shape", ["(-16, -16, 3)", "(16, 16, -3)", "(-256, -3)", "(0, 16, 3)"])
def test_an_array_of_negative_sides_is_a_bad_picture(shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    with pytest.raises(ImageError, match=r"not uint8 \(h, w, 3\)"):
        _array(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(768))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_foreign_tars_are_cut_anew(tmp_path):
    long_name = "folder/" + "n" * 120
    samples = [
        {"__key__": "a/0", "jpg": picture(0), "cls": 7, "json": {"caption": "é", "label": 2}},
        {"__key__": "a/1", "txt": "no picture", "json": {}},
        {"__key__": "a/2", "left.png": picture(2, "PNG"), "json": {}, "cls": 1},
        {"__key__": long_name, "seg.png": picture(3, "PNG"), "webp": picture(4, "WEBP")},
        {"__key__": "a/4", "npy": Rooms(10, 30).item(4).image},
        {"__key__": "a/5", "npy": np.full((30, 20), 9, np.uint8)},
    ]
    (tmp_path / "in").mkdir()
    for number in range(2):
        with wds.TarWriter(str(tmp_path / "in" / f"{number}.tar")) as writer:
            for sample in samples[number * 3 : number * 3 + 3]:
                writer.write(sample)
    gc.collect()
    source = pickle.loads(pickle.dumps(Webdataset(str(tmp_path / "in"))))
    with pytest.raises(ShardsError, match=r"sample a/1 has no picture \(it has json, txt\)"):
        source.item(1)
    items = [source.item(position) for position in range(source.samples) if position != 1]
    assert [item.name for item in items] == ["a/0", "a/2", long_name, "a/4", "a/5"]
    assert source.passed_over.told(examples=True) == f"1 further picture of a sample ({long_name}.seg.png)"
    assert [item.label for item in items] == [2, 1, None, None, None]
    assert items[0].meta == {"caption": "é", "label": 2}
    assert items[0].image == picture(0)
    assert items[2].image == picture(4, "WEBP")  # a mask is not the picture
    np.testing.assert_array_equal(items[3].image, Rooms(10, 30).item(4).image)
    np.testing.assert_array_equal(items[4].image, np.full((30, 20, 3), 9))
    assert source.classes == ("0", "1", "2")
    index = build(source, str(tmp_path / "out"), size=24, workers=2, shard_images=2)
    assert index.record_bytes
    assert read_sample(str(tmp_path / "out"), index, position=0)[1] == {
        "caption": "é",
        "label": 2,
        "name": "a/0",
    }


def test_our_own_tars_can_be_cut_anew_smaller(tmp_path):
    build(Rooms(6, 32), str(tmp_path / "in"), size=32, encoding="jpg", shard_images=4, workers=1)
    index = build(Webdataset(str(tmp_path / "in")), str(tmp_path / "out"), size=16, workers=1)
    pixels, meta = read_sample(str(tmp_path / "out"), index, position=5)
    assert np.abs(pixels.astype(int) - Rooms(6, 16).item(5).image).mean() < 12
    assert meta["name"] == "room-0-5"
    assert meta["bright"] == Rooms(6, 16).item(5).meta["bright"]


def test_odd_foreign_samples_are_counted_by_reason(tmp_path):
    good = picture(0)
    header = npy_bytes(np.zeros((4, 4, 3), np.uint8))
    files = {
        "0.jpg": good,
        "1.jpg": good,
        "1.json": b"{",
        "2.jpg": good,
        "2.json": b"[1]",
        "3.jpg": good,
        "3.json": b'{"a":' + b"[" * 5000,
        "4.npy": npy_bytes(np.zeros((4, 4), np.float32)),
        "5.npy": header[:-1],
        "6.npy": header.replace(b"(4, 4, 3)", b"(4, 9**9)"),
        "7.npy": b"\x93NUMPY" + b"\xff" * 20,
        "8.jpg": good,
        "8.json": json.dumps({"x": [1e20] * 100}, separators=(",", ":")).replace("1e+20", "1e20").encode(),
        "9.jpg": b"",
        "._10.jpg": b"macOS",
    }
    (tmp_path / "a.tar").write_bytes(tar_of(files))
    told = []
    source = Webdataset(str(tmp_path))
    index = build(source, str(tmp_path / "out"), size=16, workers=1, max_bad=1, on_failures=told.extend)
    assert [(failure.name, failure.reason) for failure in told] == [
        ("position 1", "bad JSON"),
        ("position 2", "bad JSON"),
        ("position 3", "bad JSON"),
        ("position 4", "unsupported pixels"),
        ("position 5", "unsupported pixels"),
        ("position 6", "not a picture"),
        ("position 7", "not a picture"),
        ("9", "not a picture"),
    ]
    assert index.samples == 2


def test_tars_without_pictures_are_one_line(tmp_path):
    with pytest.raises(ShardsError, match=r"holds no \.tar files"):
        Webdataset(str(tmp_path))
    (tmp_path / "a.tar").write_bytes(tar_of({"a.txt": b"x"}))
    with pytest.raises(
        ShardsError,
        match=r"its 1 tars hold no pictures that can be used: sample a has no picture \(it has txt\)",
    ):
        Webdataset(str(tmp_path))
    with pytest.raises(ShardsError, match="is not there"):
        Webdataset(str(tmp_path / "b.tar"))


def test_a_json_that_grows_when_written_anew_is_kept(tmp_path):
    grown = b'{"x":[' + b",".join([b"1e9"] * 200) + b"]}"
    (tmp_path / "a.tar").write_bytes(tar_of({"0.jpg": picture(0), "0.json": grown}))
    index = build(Webdataset(str(tmp_path)), str(tmp_path / "out"), size=8, workers=1)
    assert read_sample(str(tmp_path / "out"), index, position=0)[1] == {"name": "0", "x": [1e9] * 200}


def test_a_scan_knows_its_bytes(tmp_path):
    data = tar_of({"a.jpg": b"12345", "b.jpg": b"678"})
    (tmp_path / "a.tar").write_bytes(data)
    found = list(members.scan_tar(str(tmp_path / "a.tar"), 0, len(data)))
    assert [data[each.start : each.stop] for each in found] == [b"12345", b"678"]
