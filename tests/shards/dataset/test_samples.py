"""Tars of any files as a dataset of samples, and an index that lies elsewhere than its tars."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_iterator

from shards.__main__ import main
from shards.building.build import build
from shards.dataset import index as indexes
from shards.dataset.samples import Samples
from shards.errors import ShardsError
from shards.sources.drawn.rooms import Rooms


def picture(seed: int, size: tuple[int, int], form: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def some_samples() -> list[tuple[str, dict[str, bytes]]]:
    """Mixed sizes, captions, several pictures, JSON of all kinds, empty files, names of many letters."""
    made = []
    for number in range(40):
        files = {"jpg": picture(number, (8 + number, 20), "JPEG"), "txt": f"a caption, no. {number}".encode()}
        if number % 3 == 0:
            files["seg.png"] = picture(number, (5, 7 + number), "PNG")
        if number % 4 == 0:
            files["json"] = json.dumps(
                [number, {"nested": None}] if number % 8 else {"label": number}
            ).encode()
        if number % 5 == 0:
            files["cls"] = str(number % 7).encode()
        if number % 7 == 0:
            files["empty"] = b""
        key = f"{number:04d}" if number % 2 else f"folder/{'long' * 30 if number == 6 else 'é'}-{number:04d}"
        made.append((key, files))
    return made


def by_webdataset(folder: Path) -> None:
    with webdataset.ShardWriter(f"{folder}/%04d.tar", maxcount=15, verbose=0) as out:
        for key, files in some_samples():
            out.write({"__key__": key, **files})


def by_python(folder: Path) -> None:
    for number in range(3):
        with tarfile.open(folder / f"{number}.tar", "w", format=tarfile.PAX_FORMAT) as out:
            for key, files in some_samples()[number * 15 : number * 15 + 15]:
                for extension, data in files.items():
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(data)
                    out.addfile(info, io.BytesIO(data))


def by_gnu_tar(folder: Path) -> None:
    files = folder.with_name("files")
    for key, parts in some_samples():
        (files / key).parent.mkdir(parents=True, exist_ok=True)
        for extension, data in parts.items():
            (files / f"{key}.{extension}").write_bytes(data)
    subprocess.run(["tar", "--sort=name", "-cf", folder / "0.tar", "-C", files, "."], check=True)


@pytest.fixture(params=[by_webdataset, by_python, by_gnu_tar])
def tars(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "tars"
    folder.mkdir()
    write: Callable[[Path], None] = request.param
    write(folder)
    return str(folder)


def by_webdatasets_reader(folder: str) -> list[dict[str, object]]:
    found = []
    for path in sorted(Path(folder).glob("*.tar")):
        with path.open("rb") as file:
            for sample in group_by_keys({**each, "__url__": str(path)} for each in tar_file_iterator(file)):
                found.append({name: value for name, value in sample.items() if name != "__local_path__"})
    return found


def test_every_file_is_what_webdatasets_reader_gives(tars: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", tars, "--samples", "--block-images", "4"]) == 0
    assert "indexed: 40 samples in" in capsys.readouterr().out
    found, expected = Samples(tars), by_webdatasets_reader(tars)
    assert len(found) == len(expected) == 40
    for sample, wanted in zip(found, expected, strict=True):
        assert sample == wanted
    assert [found[number] for number in (-1, 0, 17)] == [list(found)[number] for number in (-1, 0, 17)]
    assert main(["verify", tars, "--decode"]) == 0
    assert main(["info", tars]) == 0
    assert "size      any" in capsys.readouterr().out


def test_what_is_decoded_is_decoded_when_it_is_asked_for(tmp_path: Path) -> None:
    by_webdataset(tmp_path)
    assert main(["index", str(tmp_path), "--samples"]) == 0
    samples = Samples(str(tmp_path))
    by_key = {sample.key: sample for sample in samples}
    assert by_key["0001"].picture.shape == (20, 9, 3)
    assert by_key["folder/é-0008"].label == 8
    assert by_key["0005"].label == 5
    assert by_key["0001"].label is None
    assert by_key["folder/é-0008"].meta == {"label": 8}
    with pytest.raises(ShardsError, match="not a JSON object"):
        _ = by_key["folder/é-0004"].meta
    assert samples.labels()[:9].tolist() == [0, -1, -1, -1, -1, 5, -1, -1, 8]
    assert samples.classes[:2] == ("0", "1")


def test_an_index_may_lie_elsewhere_than_its_tars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As for a bucket that can only be read."""
    tars, index, home = (str(tmp_path / name) for name in ("tars", "index", "home"))
    build(Rooms(90, size=16), tars, size=16, shard_images=40, workers=1)
    assert Samples(tars)[5].picture.shape == (16, 16, 3)
    before = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in Path(tars).iterdir()}
    (Path(tars) / "index.json").unlink()
    assert main(["index", tars, "--out", index]) == 0
    assert sorted(path.name for path in Path(index).iterdir()) == ["blocks.npy", "index.json"]
    assert {path.name for path in Path(tars).iterdir()} == before.keys() - {"index.json"}
    assert indexes.load(index).tars == tars
    indexes.check_listing(index, indexes.load(index))
    assert [sample.key for sample in Samples(index)] == [f"{number:08d}" for number in range(90)]
    for words in (["verify", index, "--decode"], ["info", index], ["cp", index, home], ["verify", home]):
        assert main(words) == 0, words
    assert indexes.load(home).tars == ""
    assert {path.name for path in Path(home).iterdir()} >= {"index.json", "blocks.npy", "shard-000000.tar"}
    assert main(["cat", index, "3", "--out", str(tmp_path / "x.png")]) == 0
    (Path(tars) / "shard-000001.tar").unlink()
    assert main(["verify", index]) == 1
    assert "shard-000001.tar: missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["index", "TARS", "--out", "OUT", "--dali"], "--dali writes beside the tars and --out elsewhere"),
        (["index", "TARS", "--samples", "--block-images", "0"], "--block-images 0 is outside"),
        (["index", "s3://key:hunter22@host/bucket", "--out", "OUT"], "give it by the environment instead"),
    ],
)
def test_a_wrong_use_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    by_webdataset(tmp_path)
    places = {"TARS": str(tmp_path), "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert "hunter22" not in line
    assert not (tmp_path / "out").exists()


def test_what_needs_pictures_of_one_size_says_how_to_make_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_webdataset(tmp_path)
    assert main(["index", str(tmp_path)]) == 2
    assert "--samples" in capsys.readouterr().err
    assert main(["index", str(tmp_path), "--samples"]) == 0
    for words in (["cat", str(tmp_path), "0"], ["bench", str(tmp_path)], ["dedup", str(tmp_path)]):
        assert main(words) == 2
        assert "run: python -m shards build webdataset" in capsys.readouterr().err


def test_an_index_of_samples_can_become_one_of_pictures_and_back(tmp_path: Path) -> None:
    out = str(tmp_path / "set")
    build(Rooms(50, size=16), out, size=16, shard_images=30, workers=1)
    before = indexes.load(out)
    assert main(["index", out, "--samples"]) == 0
    assert indexes.load(out, pictures=False).encoding == indexes.SAMPLES
    assert main(["index", out]) == 0
    assert indexes.load(out).shards == before.shards
    assert indexes.load(out).block_samples == before.block_samples
