"""The features that a probe compares, by name: a trained discriminator's, and what it has to beat.

dcgan      all convolution layers of D, pooled to 4x4      random    the same, of fresh weights
raw        pixels                                          nearest   pixels, and the nearest neighbour
kmeans-N   one layer of K-means with N centroids; kmeans-N-plain without Coates's standardisation
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.gan.model import Discriminator
from dcgan_dist.probe import features, kmeans
from dcgan_dist.probe.labelled import Pictures
from dcgan_dist.probe.protocol import Classify, Labelled, Sets, nearest_classifier, svm_classifier
from dcgan_dist.seeds import seed_for
from shards.arrays import F32, U8

NAMES = ("dcgan", "random", "raw", "nearest", "kmeans-N", "supervised")
PATCH_SIDES = {8: 3}
"""Side of K-means' patches by that of pictures; 6 for all others (Coates)."""
PATCHES = 400_000
PATCHES_OF_SMALL = 40_000


@dataclass(frozen=True)
class Subject:
    """One method on one dataset, ready to be measured; `facts` are told beside its numbers."""

    sets: Sets
    classify: Classify
    facts: dict[str, Any]


def check_names(names: Sequence[str]) -> None:
    """Raises ConfigError for a method that there is none of."""
    for name in names:
        if name not in NAMES[:4] + NAMES[5:] and not re.fullmatch(r"kmeans-[1-9]\d*(-plain)?", name):
            raise ConfigError(f"method {name!r} is not one of {', '.join(NAMES)}")


def make_subject(
    name: str, pictures: Pictures, d: Discriminator, *, layers: Sequence[int], seed: int, device: torch.device
) -> Subject:
    """The features of `name`; `d` is the trained discriminator on `device`."""
    if name in ("dcgan", "random"):
        subject = d if name == "dcgan" else _fresh(d, seed)
        return _discriminator(subject, pictures, layers=layers, device=device)
    learning, test = (features.grey_if_it_is(x) for x in (pictures.learning_raw, pictures.test_raw))
    if name.startswith("kmeans-"):
        return _kmeans(name, pictures, learning, test, seed=seed, device=device)
    rows = features.pixel_features(learning), features.pixel_features(test)
    classify = nearest_classifier(device) if name == "nearest" else svm_classifier(pictures.classes, device)
    return Subject(_sets(pictures, *rows), classify, {"features": rows[0].shape[1]})


def _fresh(d: Discriminator, seed: int) -> Discriminator:
    return features.randomised(d, seed=seed).to(d.logit.weight)


def _discriminator(
    d: Discriminator, pictures: Pictures, *, layers: Sequence[int], device: torch.device
) -> Subject:
    # The authors' script: statistics of the probe's own training pictures.
    told = features.freeze(d, pictures.learning[pictures.validation_images :])
    rows = [features.discriminator_features(d, x, layers=layers) for x in (pictures.learning, pictures.test)]
    facts = {
        "features": rows[0].shape[1],
        "layers": [f"conv{layer + 1}" for layer in layers],
        "batch_norm": told,
    }
    return Subject(_sets(pictures, *rows), svm_classifier(pictures.classes, device), facts)


def _kmeans(
    name: str, pictures: Pictures, learning: U8, test: U8, *, seed: int, device: torch.device
) -> Subject:
    centroids, plain = int(name.split("-")[1]), name.endswith("-plain")
    side = PATCH_SIDES.get(learning.shape[1], 6)
    dictionary = kmeans.learn(
        learning[pictures.validation_images :],
        centroids=centroids,
        side=side,
        patches=PATCHES if side == 6 else PATCHES_OF_SMALL,
        seed=seed_for(seed, "kmeans"),
        device=device,
    )
    rows = [kmeans.features(dictionary, x) for x in (learning, test)]
    if not plain:
        cut = pictures.validation_images
        kmeans.standardise(rows[0][cut:], rows[0][:cut], rows[1])
    facts = {
        "features": rows[0].shape[1],
        "centroids": centroids,
        "patch_side": side,
        "standardised": not plain,
    }
    return Subject(_sets(pictures, *rows), svm_classifier(pictures.classes, device), facts)


def _sets(pictures: Pictures, learning: F32, test: F32) -> Sets:
    return Sets(
        Labelled(learning, pictures.learning_labels),
        pictures.validation_images,
        Labelled(test, pictures.test_labels),
        pictures.classes,
    )
