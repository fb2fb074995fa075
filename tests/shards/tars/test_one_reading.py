"""Promises about tars of others: `index` and `build webdataset` read them alike, as webdataset itself does;
what cannot be taken is refused, or counted and named.
"""

import gc
import gzip
import io
import json
import subprocess
import tarfile

import pytest
import webdataset

from shards.__main__ import main
from shards.dataset import index as indexes
from shards.dataset.describe import read_sample
from tests.shards.dataset.foreign import pack, picture, write

JPG = [picture(number) for number in range(4)]
LINKS = "write the tar anew: tar --dereference --hard-dereference"


@pytest.fixture
def shards(capsys):
    def run(*words):
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        assert status in (0, 2)
        assert "Traceback" not in said.err
        return status, said.err

    return run


@pytest.fixture
def both(tmp_path, shards):
    """What `index` and `build webdataset` make of the tars in `tmp_path/set`: what is read, what is told."""

    def run(*tars):
        for number, tar in enumerate(tars):
            (tmp_path / "set").mkdir(exist_ok=True)
            (tmp_path / "set" / f"{number}.tar").write_bytes(tar)
        found = []
        words = ("build", "webdataset", tmp_path / "set", tmp_path / "out", "--size", "16", "--workers", "1")
        for url, command in ((tmp_path / "out", (*words, "--max-bad", "1")), ("set", ("index", "set"))):
            where = tmp_path / url
            status, told = shards(*(where if word == "set" else word for word in command))
            metas = None
            if status == 0:
                index = indexes.load(str(where))
                metas = [read_sample(str(where), index, position=n)[1] for n in range(index.samples)]
            found.append((metas, told))
        return found

    return run


def labels(metas):
    return [meta.get("label") for meta in metas]


def of_webdataset(path):
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
    gc.collect()
    return samples


CASES = {
    "json first": ([("a.json", b'{"label": 3}'), ("a.cls", b"4")], 3),
    "cls else": ([("a.json", b"{}"), ("a.cls", b"4\n")], 4),
    "text is no label": ([("a.json", b'{"label": "3"}'), ("a.cls", b"4")], 4),
    "nor true": ([("a.json", b'{"label": true}'), ("a.cls", b"4")], 4),
    "nor a share": ([("a.json", b'{"label": 3.5}'), ("a.cls", b"4")], 4),
    "nor below zero": ([("a.json", b'{"label": -1}'), ("a.cls", b"4")], 4),
    "nor a million": ([("a.json", b'{"label": 1000000}'), ("a.cls", b"4")], 4),
    "nor null": ([("a.json", b'{"label": null}'), ("a.cls", b"4")], 4),
    "none": ([("a.json", b""), ("a.cls", b"cat")], None),
    "upper case": ([("a.JSON", b'{"x": 1}'), ("a.CLS", b"4")], 4),
    "a file between": ([("README", b"x" * 600), ("a.cls", b"4")], 4),
    "a folder between": ([("d.jpg/", b""), ("a.cls", b"4")], 4),
    "notes between": ([("__meta__/info.json", b"{}"), ("a.cls", b"4")], 4),
    "macOS between": ([("._a.jpg", b"Mac"), ("a.cls", b"4")], 4),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_both_see_the_same_samples_and_labels(tmp_path, both, case, format):
    members, label = CASES[case]
    members = [("a.jpg", JPG[0]), *members, ("b.JPG", JPG[1]), ("b.cls", b"7")]
    (built, _), (adopted, _) = both(pack(members, format=format))
    assert labels(built) == labels(adopted) == [label, 7]
    theirs = of_webdataset(tmp_path / "set" / "0.tar")
    assert [sample["__key__"] for sample in theirs] == ["a", "b"] == [meta["name"] for meta in built]
    assert all("jpg" in sample and ("cls" in sample or label is None) for sample in theirs)


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("a.jpg", JPG[0]), ("b.jpg", JPG[1]), ("a.cls", b"1"), ("b.cls", b"2")], "side by side"),
        ([("a.cls", b"1"), ("b.jpg", JPG[1]), ("a.jpg", JPG[0])], "side by side"),
        ([("a.jpg", JPG[0]), ("a.JPG", JPG[1])], "is there twice in one sample"),
        ([("a.jpg", JPG[0]), ("d/.JPG", JPG[1])], "is a picture without a name"),
        ([("a.jpg", JPG[0]), ("../b.jpg", JPG[1])], "refusing the member name"),
    ],
)
def test_both_refuse_alike(both, members, told):
    for metas, said in both(pack(members)):
        assert metas is None
        assert told in said
        assert said.count("\n") == 1


def test_joined_tars_are_refused_by_both(both):
    one, other = (pack([(f"{name}.jpg", JPG[0])]) for name in "ab")
    for metas, said in both(one + other):
        assert metas is None
        assert "two were joined" in said


def test_tars_of_a_folder_as_gnu_tar_writes_it_lose_nothing(tmp_path, both):
    folder = tmp_path / "in"
    folder.mkdir()
    for kind in ("jpg", "cls"):
        for number in range(24):
            (folder / f"{number}.{kind}").write_bytes(JPG[number % 4] if kind == "jpg" else b"%d" % number)
    names = [f"{number}.{kind}" for kind in ("jpg", "cls") for number in range(24)]
    for order, whole in ((names, False), (["--sort=name", "."], True)):
        tar = subprocess.run(["tar", "-c", "-C", folder, *order], check=True, capture_output=True).stdout
        for metas, said in both(tar):
            assert (metas is not None) == whole
            assert whole or "tar --sort=name" in said
            assert not whole or sorted(labels(metas)) == list(range(24))


@pytest.mark.parametrize(
    ("names", "served", "told"),
    [
        (
            ["22.00.jpg", "22.01.jpg", "22.02.jpg", "22.03.jpg"],
            0,
            "3 further pictures of a sample (22.01.jpg)",
        ),
        (["a.left.png", "a.right.png"], 0, "1 further picture of a sample (a.right.png)"),
        (["a.seg.png", "a.png"], 1, "1 further picture of a sample (a.seg.png)"),
        (["a.png", "__more__/b.png", "c", ".d.png"], 0, "3 files of no sample (__more__/b.png)"),
    ],
)
def test_pictures_that_are_not_served_are_counted_and_named(tmp_path, both, names, served, told):
    kinds = [picture(n, encoding="png" if name.endswith("png") else "jpg") for n, name in enumerate(names)]
    for metas, said in both(pack(zip(names, kinds, strict=True))):
        assert len(metas) == 1
        assert said == f"passed over: {told}\n"
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert sum(report["passed_over_by_kind"].values()) == len(names) - 1
    index = indexes.load(str(tmp_path / "set"))
    pixels, _ = read_sample(str(tmp_path / "set"), index, position=0)
    write(tmp_path / "one", [(f"0.{names[served][-3:]}", kinds[served])])
    assert main(["index", str(tmp_path / "one")]) == 0
    one, _ = read_sample(str(tmp_path / "one"), indexes.load(str(tmp_path / "one")), position=0)
    assert (pixels == one).all()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("linked", ["b.jpg", "a.cls"])
def test_pictures_and_labels_behind_links_are_counted(tmp_path, both, kind, linked):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in (("a.jpg", JPG[0]), ("a.cls", b"1"), ("b.jpg", JPG[1]), ("c.jpg", JPG[2])):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name == linked:
                info.type, info.linkname, info.size = kind, "c.jpg", 0
            tar.addfile(info, io.BytesIO(data))
    (built, told), (adopted, refused) = both(stream.getvalue())
    assert adopted is None
    assert len(built) == 2
    assert f"(link: 1)\n  position {'ab'.index(linked[0])}: sample {linked[0]}: {linked} is a link" in told
    assert LINKS in told
    assert LINKS in refused
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["failures_by_reason"] == {"link": 1}


def test_samples_without_a_picture_are_counted(tmp_path, both):
    (built, told), (adopted, refused) = both(pack([("a.jpg", JPG[0]), ("b.txt", b""), ("c.jpg", JPG[1])]))
    assert (len(built), adopted) == (2, None)
    assert "left out 1 pictures (no picture: 1)\n  position 1: sample b has no picture (it has txt)" in told
    assert "sample b has no image that we read (it has txt" in refused


JSONS = {
    "own name": ({"name": "Alice", "label": "cat"}, {"name": "Alice", "label": "cat"}),
    "long": ({"exif": "x" * 70000}, {"exif": "x" * 70000}),
    "longer": ({"exif": "x" * 2**20}, {"exif": "x" * 2**20}),
    "NaN": (b'{"a": NaN, "b": [-Infinity, 1e999]}', {"a": None, "b": [None, None]}),
    "half a character": (b'{"a\\udc00": "\\ud83d"}', {"a\udc00": "\ud83d"}),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    "nothing": (b" \n", {}),
}


@pytest.mark.parametrize("case", JSONS)
@pytest.mark.parametrize("encoding", ["npy", "png"])
def test_json_is_kept(tmp_path, shards, both, case, encoding):
    given, kept = JSONS[case]
    data = given if isinstance(given, bytes) else json.dumps(given).encode()
    members = [("a.jpg", JPG[0]), ("a.json", data), ("b.jpg", JPG[1]), ("b.json", b'{"ok": 1}')]
    (built, told), (adopted, _) = both(pack(members))
    assert adopted == [kept, {"ok": 1}]
    assert built == [{"name": "a"} | kept, {"name": "b", "ok": 1}]
    assert told == ("passed over: 3 json numbers of no finite value (a)\n" if case == "NaN" else "")
    out = tmp_path / encoding
    words = ("--size", "16", "--encoding", encoding, "--workers", "1")
    assert shards("build", "webdataset", tmp_path / "set", out, *words)[0] == 0
    assert shards("verify", out, "--decode")[0] == 0
    assert read_sample(str(out), indexes.load(str(out)), position=1)[1] == {"name": "b", "ok": 1}


@pytest.mark.parametrize(
    "data",
    [b"{", b"[1]", b"null", b'{"a": "gr\xfcn"}', b'{"n": ' + b"9" * 5000 + b"}", b'{"a":' * 600 + b"1"],
)
def test_json_that_is_none_is_told_by_both(both, data):
    members = [("a.jpg", JPG[0]), ("a.json", data), ("b.jpg", JPG[1])]
    (built, told), (adopted, refused) = both(pack(members))
    assert (len(built), adopted) == (1, None)
    assert "left out 1 pictures (bad JSON: 1)" in told
    assert "sample a: its .json member is not" in told
    assert "sample a: its .json member is not" in refused


def v7(data):
    """The tar `data` in the form of 1979."""
    blocks, at = bytearray(data), 0
    while any(blocks[at : at + 512]):
        length = int(bytes(blocks[at + 124 : at + 135]), 8)
        blocks[at + 257 : at + 512] = bytes(255)
        blocks[at + 148 : at + 156] = b" " * 8
        blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])
        at += 512 + length + -length % 512
    return bytes(blocks)


def base256(data):
    """The same with the first length in base 256."""
    blocks = bytearray(data)
    length = int(bytes(blocks[124:135]), 8)
    blocks[124:136] = b"\x80" + length.to_bytes(11, "big")
    blocks[148:156] = b" " * 8
    blocks[148:156] = b"%06o\0 " % sum(blocks[:512])
    return bytes(blocks)


@pytest.mark.parametrize("form", [v7, base256])
def test_old_and_odd_forms_of_tars_are_read(tmp_path, shards, both, form):
    members = [("a.jpg", JPG[0]), ("a.cls", b"1"), ("b.jpg", JPG[1]), ("b.cls", b"2")]
    data = form(pack(members, format=tarfile.USTAR_FORMAT))
    for metas, said in both(data):
        assert labels(metas) == [1, 2]
        assert said == ""
    assert shards("verify", tmp_path / "set", "--decode")[0] == 0


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_form_of_gnu_tar_is_read(tmp_path, both, form):
    for number in range(3):
        (tmp_path / "in" / "d.x").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "d.x" / f"{number}.jpg").write_bytes(JPG[number])
        (tmp_path / "in" / "d.x" / f"{number}.cls").write_bytes(b"%d" % number)
    command = ["tar", f"--format={form}", "--sort=name", "-c", "-C", tmp_path / "in", "."]
    for metas, said in both(subprocess.run(command, check=True, capture_output=True).stdout):
        assert labels(metas) == [0, 1, 2]
        assert said == ""


def test_packed_tars_are_told_what_unpacks_them(tmp_path, shards, both):
    packed = gzip.compress(pack([("a.jpg", JPG[0])]))
    for metas, said in both(packed):
        assert metas is None
        assert "0.tar: byte 0: packed with gzip; packed tars are not read, so gunzip it first" in said
    (tmp_path / "set" / "0.tar").rename(tmp_path / "set" / "0.tgz")
    out = tmp_path / "out2"
    for where in ("set", "set/0.tgz"):
        status, said = shards("build", "webdataset", tmp_path / where, out, "--size", "16")
        assert (status, said.count("\n")) == (2, 1)
        assert "unpack" in said
    write(tmp_path / "set", [("a.jpg", JPG[0])])
    (tmp_path / "set" / "._00000.tar").write_bytes(b"of another system")
    for command in (
        ("build", "webdataset", tmp_path / "set", out, "--size", "16"),
        ("index", tmp_path / "set"),
    ):
        assert shards(*command) == (0, "passed over: 1 packed tar (0.tgz)\n")


def test_a_sparse_file_is_one_line_however_damaged_its_map(both):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.jpg"}
        info.size = len(JPG[0])
        tar.addfile(info, io.BytesIO(JPG[0]))
    for metas, said in both(stream.getvalue()):
        assert metas is None
        assert "a sparse file; only whole files are read, so write the tar without -S" in said
