"""Files that were published with a checksum: a download that is cut or altered is named.

Small files are compared as they are opened; large ones once for each build, which remembers it. Kept out:
downloading.
"""

import hashlib
import re
from functools import partial
from typing import BinaryIO, Protocol, runtime_checkable

from shards.errors import ShardsError
from shards.storage import store
from shards.storage.pieces import PIECE_BYTES
from shards.tars.members import file_size
from shards.tars.records import compact_json

MD5 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
    "img_align_celeba.zip": "00d2c5bc6d35e252742224ab0c1e8fcb",
    "list_attr_celeba.txt": "75e246fa4810816ffd6ee81facbd244c",
    "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
}
"""The md5 of each file as its publisher, or torchvision, gives it."""

VERIFIED_NAME = "|".join(re.escape(f"{name}.verified.json") for name in MD5)
"""What says beside a build that a file has been compared, and which version of it."""


@runtime_checkable
class Published(Protocol):
    """A source whose large files are compared by whoever builds from it, and not when it is opened."""

    downloads: tuple[str, ...]
    """Their URLs; those without a published name are passed by."""


def check_downloads(source: object, out_url: str) -> None:
    """Compare the large files of a source with their md5, once for a build at `out_url`. Raises ShardsError.

    All of each is read, unless a mark beside the build says that this very version of the file was compared.
    """
    for url in source.downloads if isinstance(source, Published) else ():
        name = url.rpartition("/")[2]
        if name not in MD5:
            continue
        where = store.join(out_url, f"{name}.verified.json")
        wanted = compact_json({"file": store.state(url), "md5": MD5[name]})
        if not store.exists(where) or store.read_bytes(where) != wanted:
            check_download(url, verified=True)
            store.write_bytes(where, wanted)


def check_download(url: str, *, verified: bool) -> None:
    """Compare the file at `url`, if it has a published name, with its md5. Raises ShardsError.

    Nothing is read where `verified` is off, which is for files that were packed anew.
    """
    name = url.rpartition("/")[2]
    if not verified or name not in MD5:
        return
    found = md5(url)
    if found != MD5[name]:
        raise ShardsError(
            f"{url} is not the published {name}: its md5 is {found}, not {MD5[name]}; download it again, "
            f"or say --unverified if it was packed anew"
        )


def md5(url: str) -> str:
    """The md5 of a file, read in pieces."""
    total = hashlib.md5(usedforsecurity=False)
    at, size = 0, file_size(url)
    while at < size:
        total.update(store.read_range(url, at, min(at + PIECE_BYTES, size)))
        at += PIECE_BYTES
    return total.hexdigest()


def read_bounded(stream: BinaryIO, limit_bytes: int, where: str) -> bytes:
    """All of a compressed stream. Raises ShardsError where it is longer than `limit_bytes`."""
    parts = []
    for part in iter(partial(stream.read, min(PIECE_BYTES, limit_bytes + 1)), b""):
        parts.append(part)
        limit_bytes -= len(part)
        if limit_bytes < 0:
            raise ShardsError(f"{where} is longer than such a file can be; it is not what its name says")
    return b"".join(parts)
