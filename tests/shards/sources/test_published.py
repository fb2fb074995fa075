"""CIFAR-10, MNIST and SVHN in their own file formats: read exactly, and never unpickled."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from shards.__main__ import main
from shards.dataset.describe import read_sample
from shards.dataset.index import load
from shards.errors import ShardsError
from shards.sources import downloads
from shards.sources.published import cifar10, mnist
from shards.sources.published.cifar10 import open_cifar10
from shards.sources.published.mnist import open_mnist
from shards.sources.published.svhn import open_svhn

IMAGES = 20


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(cifar10, "BATCH_IMAGES", IMAGES)


def drawn(seed, images=IMAGES):
    """Pixels (n, 32, 32, 3) and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (images, 32, 32, 3), np.uint8), rng.integers(0, 10, images).astype(np.uint8)


def planar(pixels):
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), 3072)


def short_text(text):
    return b"U" + bytes([len(text)]) + text


def python_batch(pixels, labels, *, data=None):
    """A batch as Python 2's cPickle wrote it, protocol 2, opcode by opcode."""
    data = planar(pixels).tobytes() if data is None else data
    rows = struct.pack("<H", len(labels))
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            short_text(b"batch_label") + b"q\x02" + short_text(b"training batch 1 of 5") + b"q\x03",
            short_text(b"labels")
            + b"q\x04]q\x05("
            + b"".join(b"K" + bytes([label]) for label in labels)
            + b"e",
            short_text(b"data") + b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
            b"K\x00\x85q\tU\x01b\x87Rq\n(K\x01M" + rows + b"M\x00\x0c\x86cnumpy\ndtype\nq\x0b",
            b"U\x02u1K\x00K\x01\x87Rq\x0c(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            b"T" + struct.pack("<I", len(data)) + data + b"tb",
            short_text(b"filenames") + b"q\x0d]q\x0e(" + short_text(b"leptodactylus.png") + b"q\x0feu.",
        ]
    )


def write_batches(folder, make, ending=""):
    folder.mkdir(parents=True)
    for seed, name in enumerate([f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]):
        (folder / f"{name}{ending}").write_bytes(make(*drawn(seed)))


def binary_batch(pixels, labels):
    return np.concatenate([labels[:, None], planar(pixels)], axis=1).tobytes()


def pack(folder, path):
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)


def assert_whole(source, split):
    seeds = range(5) if split == "train" else [5]
    wanted = [drawn(seed) for seed in seeds]
    assert source.samples == len(seeds) * IMAGES
    for position in range(source.samples):
        item = source.item(position)
        pixels, labels = wanted[position // IMAGES]
        np.testing.assert_array_equal(item.image, pixels[position % IMAGES])
        assert item.label == labels[position % IMAGES]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("kind", "make", "ending"), [("py", python_batch, ""), ("bin", binary_batch, ".bin")]
)
def test_cifar10_is_read_exactly_from_folder_and_archive(tmp_path, kind, make, ending, split):
    folder = tmp_path / f"cifar-10-batches-{kind}"
    write_batches(folder, make, ending)
    pack(folder, tmp_path / "again.tar.gz")
    for path in (folder, tmp_path, tmp_path / "again.tar.gz"):
        assert_whole(open_cifar10(str(path), split), split)


def test_both_versions_of_cifar10_build_the_same_dataset(tmp_path):
    write_batches(tmp_path / "py", python_batch)
    write_batches(tmp_path / "bin", binary_batch, ".bin")
    for name in ("py", "bin"):
        out = str(tmp_path / f"out-{name}")
        assert main(["build", "cifar10", str(tmp_path / name), out, "--size", "32", "--workers", "1"]) == 0
    one, two = (load(str(tmp_path / name)) for name in ("out-py", "out-bin"))
    assert one == two
    pixels, meta = read_sample(str(tmp_path / "out-py"), one, position=21)
    np.testing.assert_array_equal(pixels, drawn(1)[0][1])
    assert meta == {"label": int(drawn(1)[1][1]), "name": "cifar10-train-000021"}


def shared_pairs():
    """A key of 2**60 parts, each pair made of the one before twice."""
    pairs = (b"h%ch%c\x86q%c" % (number, number, number + 1) for number in range(60))
    return b"\x80\x02}()q\x00" + b"".join(pairs) + b"K\x01u."


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda batch: batch[:2000], "cut short or damaged"),
        (lambda batch: b"", "cut short or damaged"),
        (lambda batch: pickle.dumps({"data": Hostile(), "labels": [0] * IMAGES}, 2), "no uint8 data"),
        (lambda batch: pickle.dumps({"data": {1, 2}}, 4), "which no batch of CIFAR-10 does; it is refused"),
        (lambda batch: pickle.dumps([1, 2], 2), "no uint8 data or no labels"),
        (lambda batch: b"cos\nsystem\nU\x02ls\x85R.", "no uint8 data"),
        (lambda batch: b"(K\x01b.", "cut short or damaged"),
        (lambda batch: b"K\x01K\x02R.", "a call of something that is no name"),
        (lambda batch: b"\x80\x02}()" + b"\x85" * 50_000 + b"K\x01u.", "a tuple as a key"),
        (lambda batch: shared_pairs(), "a tuple as a key"),
        (lambda batch: b"\x80\x02" + b"N" * 300_000 + b"(t" * 400_000 + b".", "over 1000000 codes"),
        (lambda batch: python_batch(*drawn(0), data=b"\0" * 99), "no uint8 data"),
        (lambda batch: batch.replace(b"U\x02u1", b"U\x02f4"), "no uint8 data"),
        (lambda batch: batch.replace(b"K\x09", b"K\x0a"), r"20 labels, not all in \[0, 9\]"),
    ],
)
def test_a_hostile_batch_is_one_line_and_nothing_of_it_is_executed(tmp_path, spoil, message):
    write_batches(tmp_path / "in", python_batch)
    path = tmp_path / "in" / "data_batch_1"
    pixels, labels = drawn(0)
    labels[0] = 9
    path.write_bytes(spoil(python_batch(pixels, labels)))
    with pytest.raises(ShardsError, match=message):
        open_cifar10(str(tmp_path / "in"), "train")


def test_a_wrong_download_of_cifar10_is_named(tmp_path, monkeypatch, capsys):
    write_batches(tmp_path / "py", python_batch)
    archive = tmp_path / "cifar-10-python.tar.gz"
    pack(tmp_path / "py", archive)
    command = ["build", "cifar10", str(archive), str(tmp_path / "out"), "--size", "32", "--workers", "1"]
    assert main(command) == 2
    assert "is not the published cifar-10-python.tar.gz: its md5 is" in capsys.readouterr().err
    assert main([*command, "--unverified"]) == 0
    monkeypatch.setitem(downloads.MD5, archive.name, downloads.md5(str(archive)))
    assert_whole(open_cifar10(str(archive), "train"), "train")


def test_what_is_not_cifar10_is_one_line(tmp_path):
    with pytest.raises(ShardsError, match="is not there; give the archive"):
        open_cifar10(str(tmp_path / "no"), "train")
    with pytest.raises(ShardsError, match="has no data_batch_1; give"):
        open_cifar10(str(tmp_path), "train")
    (tmp_path / "x.tar").write_bytes(b"hello")
    with pytest.raises(ShardsError, match="is cut short or no tar"):
        open_cifar10(str(tmp_path / "x.tar"), "train")
    write_batches(tmp_path / "bin", binary_batch, ".bin")
    (tmp_path / "bin" / "test_batch.bin").write_bytes(bytes(3073))
    with pytest.raises(ShardsError, match="has 3073 bytes, a batch has 61460"):
        open_cifar10(str(tmp_path / "bin"), "test")
    with (tmp_path / "bin" / "test_batch.bin").open("r+b") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(ShardsError, match="is over 67108864 bytes"):
        open_cifar10(str(tmp_path / "bin"), "test")
    pack(tmp_path / "bin", tmp_path / "bomb.tgz")
    with pytest.raises(ShardsError, match=r"test_batch\.bin declares 67108865 bytes"):
        open_cifar10(str(tmp_path / "bomb.tgz"), "test")


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_mnist(folder, ending, images=9):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (images, 28, 28), np.uint8), np.arange(images, dtype=np.uint8)
    pack_one = gzip.compress if ending.endswith(".gz") else bytes
    folder.mkdir()
    (folder / f"t10k-images-idx3-ubyte{ending}").write_bytes(pack_one(idx(pixels)))
    (folder / f"t10k-labels-idx1-ubyte{ending}").write_bytes(pack_one(idx(labels)))
    return pixels, labels


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_is_read_exactly(tmp_path, ending):
    pixels, labels = write_mnist(tmp_path / "in", ending)
    source = open_mnist(str(tmp_path / "in"), "test", verified=False)
    for position in range(source.samples):
        item = source.item(position)
        np.testing.assert_array_equal(item.image, np.repeat(pixels[position][:, :, None], 3, 2))
        assert item.label == labels[position]


def test_what_is_not_mnist_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(ShardsError, match=r"has no train-images-idx3-ubyte\.gz; give the folder"):
        open_mnist(str(tmp_path), "train")
    folder = tmp_path / "in"
    write_mnist(folder, ".gz")
    with pytest.raises(ShardsError, match=r"is not the published t10k-images-idx3-ubyte\.gz"):
        open_mnist(str(folder), "test")
    images = folder / "t10k-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-20])
    with pytest.raises(ShardsError, match="is cut short or damaged"):
        open_mnist(str(folder), "test", verified=False)
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(ShardsError, match=r"its shape \(9, 28, 28\) asks for 7072; it is cut"):
        open_mnist(str(folder), "test", verified=False)
    images.write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12))
    with pytest.raises(ShardsError, match="it is cut"):
        open_mnist(str(folder), "test", verified=False)
    images.write_bytes(gzip.compress(b"<html>not found</html>"))
    with pytest.raises(ShardsError, match="is no idx file of 3 dimensions"):
        open_mnist(str(folder), "test", verified=False)
    images.write_bytes(gzip.compress(idx(np.zeros((8, 28, 28), np.uint8))))
    with pytest.raises(ShardsError, match="8 pictures with 9 labels"):
        open_mnist(str(folder), "test", verified=False)
    monkeypatch.setattr(mnist, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ShardsError, match="is longer than such a file can be"):
        open_mnist(str(folder), "test", verified=False)


def write_svhn(path, images=12, **changes):
    pixels, labels = drawn(3, images)
    labels = np.where(labels == 0, 10, labels)[:, None]
    savemat(path, {"X": np.moveaxis(pixels, 0, 3), "y": labels} | changes, do_compression=True)
    return pixels, labels


def test_svhn_is_read_exactly_and_ten_is_zero(tmp_path):
    pixels, labels = write_svhn(tmp_path / "train_32x32.mat")
    source = open_svhn(str(tmp_path), "train", verified=False)
    again = pickle.loads(pickle.dumps(source))
    for position in range(source.samples):
        item = again.item(position)
        np.testing.assert_array_equal(item.image, pixels[position])
        assert item.label == labels[position, 0] % 10
    assert 0 in source.labels
    assert again.settings() == source.settings()


def test_what_is_not_svhn_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(ShardsError, match=r"extra_32x32.mat is not there; give the folder"):
        open_svhn(str(tmp_path), "extra")
    path = tmp_path / "other.mat"
    for changes, message in (
        ({"X": np.zeros((9, 9, 3, 12), np.uint8)}, r"has no X of shape 32 x 32 x 3 x any"),
        ({"X": np.zeros((32, 32, 3, 12))}, "pictures of float64"),
        ({"y": np.full((12, 1), 11)}, "labels outside 1 to 10"),
        ({"y": np.ones((11, 1))}, "11 labels for 12 pictures"),
    ):
        write_svhn(path, **changes)
        with pytest.raises(ShardsError, match=message):
            open_svhn(str(path), "train")
    write_svhn(path)
    whole = path.read_bytes()
    for cut in (0, 60, 130, 200, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(ShardsError, match=r"is cut short or no \.mat file|has no"):
            open_svhn(str(path), "train")
    write_svhn(tmp_path / "test_32x32.mat")
    with pytest.raises(ShardsError, match=r"is not the published test_32x32\.mat"):
        open_svhn(str(tmp_path), "test")
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(ShardsError, match=r"pip install -c constraints\.txt -e '\.\[mat\]'"):
        open_svhn(str(path), "train")


def test_a_stream_is_read_to_its_bound():
    assert downloads.read_bounded(io.BytesIO(b"abc"), 3, "x") == b"abc"
