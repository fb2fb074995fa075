"""The labelled pictures of a probe, cut into validation, training and test as the paper does.

SVHN (section 5.2): 10,000 of the training set, shuffled by seed 42, are for validation; CIFAR-10 and other
sets follow. The digits of scikit-learn have their own split and come at their own 8x8 pixels too.
"""

from dataclasses import dataclass

import numpy as np

from dcgan_dist.config.reading import ConfigError
from shards.arrays import I64, U8
from shards.dataset.labels import read_labelled
from shards.pictures.codec import to_square
from shards.sources.published.digits import Digits

VALIDATION_IMAGES = 10_000
SHUFFLE_SEED = 42


@dataclass(frozen=True)
class Pictures:
    """Uint8 (n, S, S, 3) with labels (n,): `learning` starts with those for validation.

    `learning_raw` and `test_raw` are the pictures as published, where smaller; they serve baselines.
    """

    name: str
    learning: U8
    learning_raw: U8
    learning_labels: I64
    validation_images: int
    test: U8
    test_raw: U8
    test_labels: I64
    classes: int


def read_pictures(name: str, data: str | None, test: str | None, *, size: int) -> Pictures:
    """The pictures at `size`, that of the network. Raises ConfigError or ShardsError."""
    if name == "digits":
        return _digits(size)
    if data is None:
        raise ConfigError(f"{name} needs --data, a dataset that python -m shards build has written")
    images, labels, classes = read_labelled(data)
    _check_size(data, images, size)
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(images))
    images, labels = images[order], labels[order]
    if test is not None:
        test_images, test_labels, test_classes = read_labelled(test)
        _check_size(test, test_images, size)
        if test_classes != classes:
            raise ConfigError(f"{test} has other classes than {data}; give the test set of the same dataset")
    elif name == "imagefolder":
        cut = len(images) // 5
        test_images, test_labels, images, labels = images[:cut], labels[:cut], images[cut:], labels[cut:]
    else:
        raise ConfigError(f"{name} needs --test, its published test set")
    validation = min(VALIDATION_IMAGES, len(images) // 5)
    learned, tested = (images, images, labels), (test_images, test_images, test_labels)
    return Pictures(name, *learned, validation, *tested, len(classes))


def _check_size(url: str, images: U8, size: int) -> None:
    if images.shape[1] != size:
        raise ConfigError(
            f"{url} holds {images.shape[1]}x{images.shape[1]} pictures but the run's network takes "
            f"{size}x{size}; rebuild it with --size {size}"
        )


def _digits(size: int) -> Pictures:
    parts = {split: Digits(split) for split in ("validation", "train", "test")}
    raw, labels = {}, {}
    for split, source in parts.items():
        items = [source.item(position) for position in range(source.samples)]
        raw[split] = np.stack([np.asarray(item.image) for item in items])
        labels[split] = np.array([item.label for item in items], np.int64)
    learning = np.concatenate([raw["validation"], raw["train"]])
    learning_labels = np.concatenate([labels["validation"], labels["train"]])
    learned = _enlarged(learning, size), learning, learning_labels
    tested = _enlarged(raw["test"], size), raw["test"], labels["test"]
    return Pictures("digits", *learned, len(raw["validation"]), *tested, 10)


def _enlarged(images: U8, size: int) -> U8:
    return np.stack([to_square(image, size) for image in images])
