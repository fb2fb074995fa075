"""A large archive is compared with its published checksum once for a build, whoever does which part of it."""

import os
from pathlib import Path

import pytest

from shards.__main__ import check_build, main
from shards.building.build import build
from shards.dataset.index import load
from shards.errors import ShardsError
from shards.sources import downloads
from shards.sources.published.celeba import CelebA
from shards.sources.published.imagenet import ImageNet
from shards.sources.shuffled import Shuffled
from shards.storage import store
from tests.numbered import in_memory
from tests.shards.sources.test_faces import write_celeba
from tests.shards.tars.test_tars import imagenet, write_imagenet

NAME = "ILSVRC2012_img_train.tar"


@pytest.fixture
def tar(tmp_path, monkeypatch):
    """A small ImageNet, whose checksum is the published one."""
    (tmp_path / "in").mkdir()
    path = write_imagenet(tmp_path / "in" / NAME, imagenet())
    monkeypatch.setitem(downloads.MD5, NAME, downloads.md5(path))
    return path


@pytest.fixture
def read(monkeypatch):
    """The files that were read for their checksum."""
    found, md5 = [], downloads.md5
    monkeypatch.setattr(downloads, "md5", lambda url: found.append(url.rpartition("/")[2]) or md5(url))
    return found


def words(tar, out, *more):
    return ["build", "imagenet", tar, str(out), "--size", "8", "--workers", "1", "--shard-images", "3", *more]


def test_a_build_reads_it_once_and_one_that_is_there_not_at_all(tar, read, tmp_path):
    assert main(words(tar, tmp_path / "out")) == 0
    assert read == [NAME]
    assert main(words(tar, tmp_path / "out")) == 0
    assert read == [NAME]
    assert not list((tmp_path / "out").glob("*verified*"))
    assert main(words(tar, tmp_path / "out", "--overwrite")) == 0
    assert read == [NAME] * 2


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
def test_all_parts_and_their_merge_read_it_once(tar, read, tmp_path, order):
    for part in order:
        assert main(words(tar, tmp_path / "out", "--part", f"{part}/3")) == 0
    assert main(words(tar, tmp_path / "out", "--part", "1/3")) == 0
    assert main(words(tar, tmp_path / "out", "--merge", "3")) == 0
    assert read == [NAME]
    assert main(words(tar, tmp_path / "out", "--merge", "3")) == 0
    assert read == [NAME]
    assert main(words(tar, tmp_path / "one", "--shuffle", "3")) == 0


def test_the_check_before_a_job_does_not_read_it(tar, read, tmp_path):
    check_build(words(tar, tmp_path / "out")[1:])
    assert read == []


def test_a_build_that_was_stopped_does_not_read_it_again(tar, read, tmp_path, monkeypatch):
    def stop(*args, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shards.building.build.store_shards", stop)
        assert main(words(tar, tmp_path / "out")) == 130
    assert main(words(tar, tmp_path / "out")) == 0
    assert read == [NAME]


def test_another_version_of_the_file_is_read_again(tar, read, tmp_path):
    assert main(words(tar, tmp_path / "out", "--part", "1/2")) == 0
    os.utime(tar, (1, 1))
    assert main(words(tar, tmp_path / "out", "--part", "2/2")) == 0
    assert main(words(tar, tmp_path / "out", "--merge", "2")) == 0
    assert read == [NAME] * 2


def test_a_wrong_file_stops_the_build_its_first_part_and_the_merge(tar, tmp_path, monkeypatch, capsys):
    for part in (1, 2):
        assert main(words(tar, tmp_path / "out", "--part", f"{part}/2")) == 0
    monkeypatch.setitem(downloads.MD5, NAME, "0" * 32)
    capsys.readouterr()
    for more in ([], ["--part", "1/2"], ["--shuffle", "1"]):
        assert main(words(tar, tmp_path / "new", *more)) == 2
        assert f"is not the published {NAME}" in capsys.readouterr().err
        assert store.sizes(str(tmp_path / "new")) == {}
    assert main(words(tar, tmp_path / "out", "--merge", "2")) == 2
    assert f"is not the published {NAME}" in capsys.readouterr().err
    assert main(words(tar, tmp_path / "out", "--merge", "2", "--unverified")) == 0
    assert load(str(tmp_path / "out")).samples == 12


def test_a_file_at_a_url_and_a_shuffled_source_are_compared_too(tar, tmp_path):
    url = store.join(in_memory(str(tmp_path / "in"), "checksums"), NAME)
    assert ImageNet(url).downloads == Shuffled(ImageNet(url), 1).downloads == (url,)
    assert ImageNet(url, verified=False).downloads == ()
    assert store.state(url)["size"] == str(Path(tar).stat().st_size)
    downloads.check_downloads(ImageNet(url), str(tmp_path))
    (tmp_path / f"{NAME}.verified.json").unlink()
    store.write_bytes(url, store.read_bytes(url) + bytes(512))
    with pytest.raises(ShardsError, match="is not the published"):
        downloads.check_downloads(ImageNet(url), str(tmp_path))


def test_the_archive_of_celeba_is_one_of_them(tmp_path, read, monkeypatch):
    write_celeba(tmp_path, packed=True)
    (tmp_path / "faces.zip").rename(tmp_path / "img_align_celeba.zip")
    for path in tmp_path.iterdir():
        monkeypatch.setitem(downloads.MD5, path.name, downloads.md5(str(path)))
    read.clear()
    source = CelebA(str(tmp_path / "img_align_celeba.zip"))
    assert "img_align_celeba.zip" not in read
    build(source, str(tmp_path / "out"), size=8, workers=1)
    assert read.count("img_align_celeba.zip") == 1
