"""Promises about names and kinds of files: any name is kept or told, nothing is passed over in silence, and
nothing foreign steers a terminal.
"""

import io
import json
import os
import re
import subprocess
import sys
import tarfile

import pytest
from PIL import Image

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import read_config
from shards import ShardsError
from shards.__main__ import main
from shards.dataset import index as indexes
from shards.dataset.describe import read_sample
from shards.printable import printable, storable
from shards.sources.own.folder import Folder

ODD = "stra\udcdfe \x1b[31m\x9b\x7f\u202etxt\nx"
SHOWN = r"stra\xdfe \x1b[31m\x9b\x7f\u202etxt\nx"


def jpeg(form="JPEG"):
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 100, 50)).save(stream, form)
    return stream.getvalue()


def touch(path, data=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data or jpeg())


def shards(*words):
    """Run the command as a user does; everything that it says."""
    words = [str(word) for word in words]
    found = subprocess.run([sys.executable, "-m", "shards", *words], capture_output=True, timeout=300)
    return found.returncode, found.stdout.decode(), found.stderr.decode()


def test_what_steers_a_terminal_is_shown_and_the_rest_stays():
    assert printable(ODD) == SHOWN
    assert storable(ODD) == ODD.replace("\udcdf", r"\xdf")
    for plain in ("", "a b", "Zürich/日本.jpg", r"a\b"):
        assert printable(plain) == storable(plain) == plain
    assert str(ShardsError(f"no {ODD}")) == f"no {SHOWN}"
    assert str(ConfigError("a\x9bb")) == r"a\x9bb"


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_a_name_that_is_not_utf_8_is_kept_with_escapes(tmp_path, capsys, kind):
    source = tmp_path / "in"
    for name in ("gr\udcfcn/stra\udcdfe.jpg", "gr\udcfcn/b.jpg", "green/c.jpg"):
        touch(source / name)
    if kind == "webdataset":
        (tmp_path / "tars").mkdir()
        with tarfile.open(tmp_path / "tars" / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for path in sorted(source.rglob("*.jpg")):
                tar.add(path, str(path.relative_to(source)))
        source = tmp_path / "tars"
    out = str(tmp_path / "out")
    assert main(["build", kind, str(source), out, "--size", "8", "--workers", "1"]) == 0
    assert "built: 3 images" in capsys.readouterr().out
    index = indexes.load(out)
    names = {read_sample(out, index, position=position)[1]["name"] for position in range(3)}
    ending = ".jpg" if kind == "folder" else ""
    assert names == {rf"gr\xfcn/stra\xdfe{ending}", rf"gr\xfcn/b{ending}", f"green/c{ending}"}
    if kind == "folder":
        assert index.classes == ("green", r"gr\xfcn")
    assert main(["info", out]) == 0


def test_faces_are_looked_for_in_pictures_of_any_name(tmp_path, capsys):
    pytest.importorskip("cv2")
    touch(tmp_path / "in" / "stra\udcdfe.jpg")
    words = ["build", "webfaces", str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert r"stra\xdfe.jpg has no face" in (tmp_path / "out" / "failures.json").read_text().replace(
        "\\\\", "\\"
    )
    assert "none of the 1 pictures is usable" in said


def test_a_failure_is_named_without_steering_the_terminal(tmp_path):
    touch(tmp_path / "in" / "good.jpg")
    touch(tmp_path / "in" / f"{ODD}.jpg", b"no picture")
    status, out, said = shards("build", "folder", tmp_path / "in", tmp_path / "out", "--size", 8)
    assert status == 0
    assert f"  {SHOWN}.jpg: not a picture" in said
    assert not any(sign in out + said for sign in "\x1b\x9b\x7f\u202e")
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())["failures"]
    assert [failure["name"] for failure in failures] == [storable(ODD) + ".jpg"]


def test_a_foreign_index_does_not_steer_the_terminal(tmp_path, capsys):
    touch(tmp_path / "in" / "cat" / "a.jpg")
    out = tmp_path / "out"
    assert main(["build", "folder", str(tmp_path / "in"), str(out), "--size", "8", "--workers", "1"]) == 0
    fields = json.loads((out / "index.json").read_text())
    hostile = "\x1b]0;x\x07\x9b2J\u202e\nimages   99"
    fields["classes"], fields["source"] = [hostile], {"source": hostile, hostile: 1}
    (out / "index.json").write_text(json.dumps(fields))
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 11
    assert all(sign.isprintable() for line in said.splitlines() for sign in line)


def test_the_json_that_is_printed_stays_json(tmp_path, capsys):
    touch(tmp_path / "in" / f"{ODD}.jpg")
    out = str(tmp_path / "out")
    assert main(["build", "folder", str(tmp_path / "in"), out, "--size", "8", "--workers", "1"]) == 0
    capsys.readouterr()
    assert main(["cat", out, "0", "--out", str(tmp_path / "x.png")]) == 0
    said = capsys.readouterr().out.rstrip("\n")
    assert said.isprintable()
    assert json.loads(said)["name"] == storable(ODD) + ".jpg"


def test_everything_that_is_passed_over_is_counted_and_named(tmp_path):
    source = tmp_path / "in"
    for name in ("a.jpg", "b.jfif", "c.JPE", "without", "d.mpo"):
        touch(source / "real" / name)
    for name in ("e.avif", "f.AVIF", "g.jp2", "notes", ".hidden.png", ".git/x.png", "h.jpg~1 old copy"):
        touch(source / "real" / name, b"hello, this is no picture")
    (source / "linked").symlink_to("real")
    (source / "real" / "broken.jpg").symlink_to("/nowhere/x.jpg")
    (source / "real" / "loop.png").symlink_to("loop.png")
    (source / "real" / "good-link.jpg").symlink_to("a.jpg")
    os.mkfifo(source / "real" / "pipe.png")
    out = tmp_path / "out"
    status, said, told = shards("build", "folder", source, out, "--size", 8, "--workers", 1)
    assert status == 0, told
    assert "built: 6 images" in said
    assert re.sub(r" \([^)]*\)", "", told) == (
        "passed over: 2 .avif, 2 broken links, 1 .jp2, 1 file of another kind, 1 file without extension, "
        "1 hidden file, 1 hidden folder, 1 linked folder, 1 special file\n"
    )
    report = json.loads((out / "report.json").read_text())
    assert report["failures_by_reason"] == {}
    assert report["passed_over_by_kind"][".avif"] == 2
    assert sum(report["passed_over_by_kind"].values()) == 11


def test_shuffled_pictures_are_counted_alike(tmp_path):
    touch(tmp_path / "in" / "a.jpg")
    touch(tmp_path / "in" / "b.heic")
    words = ("build", "folder", tmp_path / "in", tmp_path / "out", "--size", 8, "--shuffle", 1)
    assert shards(*words)[2] == "passed over: 1 .heic (b.heic)\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda top: (top / "1.jpg").symlink_to("/nowhere/1.jpg"), r"1 broken link \(1\.jpg\)"),
        (lambda top: (top / "cats").symlink_to("/usr"), r"1 linked folder \(cats\)"),
        (lambda top: touch(top / "a.heic"), r"1 \.heic \(a\.heic\)"),
    ],
)
def test_a_folder_of_nothing_we_read_says_what_is_there(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ShardsError, match=f"holds no pictures .*; passed over: {message}; give the folder"):
        Folder(str(tmp_path))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_without_an_extension_is_known_by_its_first_bytes(tmp_path, form):
    touch(tmp_path / "picture", jpeg(form))
    touch(tmp_path / "BMW", b"BM is how the name of a car begins")
    folder = Folder(str(tmp_path))
    assert folder.samples == 1
    assert folder.passed_over.counts == {"file without extension": 1}


@pytest.mark.parametrize("setting", ["run.dir", "data.url"])
def test_a_setting_that_is_not_utf_8_is_one_line(setting):
    with pytest.raises(ConfigError, match=r"gr\\xfcn is not UTF-8"):
        read_config([f"--{setting}", "runs/gr\udcfcn"], "train")
