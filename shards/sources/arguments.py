"""The sources as the command line names them: what each reads, and its own options.

Kept out: how a dataset is cut, which is the same for all of them.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from shards.sources.base import Source
from shards.sources.drawn.faces import Faces
from shards.sources.drawn.rooms import Rooms
from shards.sources.own.folder import Folder
from shards.sources.own.webdataset import Webdataset
from shards.sources.own.webfaces import CROP_PIXELS, Webfaces
from shards.sources.published.celeba import CROPS, PARTITIONS, CelebA
from shards.sources.published.cifar10 import open_cifar10
from shards.sources.published.digits import PARTS, Digits
from shards.sources.published.imagenet import ImageNet
from shards.sources.published.lsun import Lsun
from shards.sources.published.mnist import open_mnist
from shards.sources.published.svhn import SPLITS as SVHN_SPLITS
from shards.sources.published.svhn import open_svhn
from shards.storage.paths import argument

Open = Callable[[argparse.Namespace], Source]


def add_sources(sources: Any) -> Iterator[argparse.ArgumentParser]:
    """The parser of each source, which sets `source` to what opens it."""
    yield _drawn(sources, "rooms", "drawn bedrooms, any number of them", Rooms)
    yield _drawn(sources, "faces", "drawn faces with yaw, smile, glasses, hair", Faces)
    digits = _source(
        sources,
        "digits",
        "1,797 real digits, 8 x 8, from scikit-learn",
        lambda options: Digits(options.split),
    )
    digits.add_argument("--split", choices=("all", *PARTS), default="all", help="(default: all)")
    yield digits
    folder = _source(
        sources,
        "folder",
        "a local tree of pictures; first folder = class",
        lambda options: Folder(options.input),
    )
    _input(folder, "the folder that holds the pictures")
    yield folder
    lsun = _source(sources, "lsun", "a category of LSUN, an LMDB", lambda options: Lsun(options.input))
    _input(lsun, "the folder of data.mdb")
    yield lsun
    webfaces = _source(
        sources,
        "webfaces",
        "the faces in a folder of pictures, by OpenCV's detector",
        lambda options: Webfaces(options.input, options.size, min_pixels=options.min_face),
    )
    _input(webfaces, "the folder that holds the pictures")
    what = "smallest side of a face, in pixels"
    webfaces.add_argument(
        "--min-face", metavar="N", type=int, default=CROP_PIXELS, help=f"{what} (default: {CROP_PIXELS})"
    )
    yield webfaces
    yield _imagenet(sources)
    yield _celeba(sources)
    foreign = _source(
        sources, "webdataset", "foreign webdataset tars, cut anew", lambda options: Webdataset(options.input)
    )
    _input(foreign, "a tar, or a folder or URL of tars")
    yield foreign
    yield _published(
        sources, "cifar10", "CIFAR-10, Python or binary version", open_cifar10, "its archive, or folder"
    )
    yield _published(sources, "mnist", "MNIST and its kind, idx files", open_mnist, "the folder of idx files")
    yield _published(
        sources,
        "svhn",
        "SVHN's cropped digits, .mat files",
        open_svhn,
        "the folder of .mat files",
        SVHN_SPLITS,
    )


def _source(sources: Any, name: str, does: str, opens: Open) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = sources.add_parser(name, help=does)
    parser.set_defaults(source=opens)
    return parser


def _input(parser: argparse.ArgumentParser, does: str) -> None:
    parser.add_argument("input", metavar="IN", type=argument, help=does)


def _drawn(
    sources: Any, name: str, does: str, make: Callable[[int, int, int], Source]
) -> argparse.ArgumentParser:
    parser = _source(sources, name, does, lambda options: make(options.images, options.size, options.seed))
    for flag, what, default in (
        ("--images", f"{name} to draw", 20000),
        ("--seed", f"another seed, other {name}", 0),
    ):
        parser.add_argument(flag, metavar="N", type=int, default=default, help=f"{what} (default: {default})")
    return parser


def _published(
    sources: Any,
    name: str,
    does: str,
    opens: Callable[..., Source],
    what: str,
    splits: Sequence[str] = ("train", "test"),
) -> argparse.ArgumentParser:
    parser = _source(
        sources, name, does, lambda options: opens(options.input, options.split, verified=options.verified)
    )
    _input(parser, what)
    parser.add_argument("--split", choices=splits, default=splits[0], help=f"(default: {splits[0]})")
    _unverified(parser)
    return parser


def _imagenet(sources: Any) -> argparse.ArgumentParser:
    parser = _source(
        sources,
        "imagenet",
        "ILSVRC 2012, the tar of 1,000 tars, or the validation tar",
        lambda options: ImageNet(
            options.input, options.split, devkit=options.devkit, verified=options.verified
        ),
    )
    _input(parser, "the tar as published, a file or URL")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="(default: train)")
    parser.add_argument(
        "--devkit", metavar="FILE", type=argument, help="ILSVRC2012_devkit_t12.tar.gz or its folder, for val"
    )
    _unverified(parser)
    return parser


def _celeba(sources: Any) -> argparse.ArgumentParser:
    parser = _source(
        sources,
        "celeba",
        "CelebA, aligned and cropped",
        lambda options: CelebA(options.input, options.split, crop=options.crop, verified=options.verified),
    )
    _input(parser, "img_align_celeba.zip, or its folder; the two lists beside it")
    parser.add_argument("--split", choices=("all", *PARTITIONS), default="all", help="(default: all)")
    parser.add_argument("--crop", choices=tuple(CROPS), default="dcgan", help="(default: dcgan)")
    _unverified(parser)
    return parser


def _unverified(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unverified",
        dest="verified",
        action="store_false",
        help="do not compare with the published checksum, for files that were packed anew",
    )
