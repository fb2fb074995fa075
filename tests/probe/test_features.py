"""Features of D as the paper pools them, and what is refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import Discriminator, build
from dcgan_dist.probe import features
from shards.building.build import build as build_set
from shards.dataset.labels import read_labelled
from shards.errors import ShardsError
from shards.sources.drawn.rooms import Rooms
from shards.sources.published.digits import PARTS, Digits


@pytest.mark.parametrize(
    ("net", "length", "windows"), [("imagenet32", 28_672, [8, 4, 4, 2, 2, 1]), ("svhn32", 7_168, [4, 2, 1])]
)
def test_the_papers_networks_give_the_papers_lengths(net: str, length: int, windows: list[int]) -> None:
    described = parse_net(net)
    layers = features.choose_layers(described, ())
    assert features.feature_length(described, layers) == length
    assert [described.d[layer].side // features.POOLED_SIDE for layer in layers] == windows


def tiny(seed: int = 1) -> Discriminator:
    return build(parse_net("tiny16"), norm_eps=1e-8, seeds=(seed, seed))[1]


def some_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


def test_features_are_the_maxima_of_windows_of_every_layer() -> None:
    d, images = tiny(), some_images(5)
    assert "1 batches of 128 of 5 pictures" in features.freeze(d, images)
    found = features.discriminator_features(d, images, layers=[0, 1])
    with torch.no_grad():
        first, last = d.maps(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert found.shape == (5, 8 * 16 + 16 * 16)
    by_hand = first.numpy().reshape(5, 8, 4, 2, 4, 2).max((3, 5)).reshape(5, -1)
    np.testing.assert_allclose(found[:, : 8 * 16], by_hand, atol=1e-5)
    np.testing.assert_allclose(found[:, 8 * 16 :], last.numpy().reshape(5, -1), atol=1e-4)
    # the logit is a weighting of the very last maps
    with torch.no_grad():
        logits = d(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    np.testing.assert_allclose(
        found[:, 8 * 16 :] @ d.logit.weight[0].detach().numpy(), logits.numpy(), atol=1e-4
    )


def test_many_features_lie_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", 1000)
    d, images = tiny(), some_images(3)
    features.freeze(d, images)
    assert isinstance(features.discriminator_features(d, images, layers=[0]), np.memmap)


def test_random_features_are_of_the_same_shape_and_others() -> None:
    d = tiny()
    other = features.randomised(d, seed=3)
    assert other.convs[0].weight.shape == d.convs[0].weight.shape
    assert not torch.equal(other.convs[0].weight, d.convs[0].weight)


def test_layers_that_are_not_there_or_do_not_pool_are_refused() -> None:
    net = parse_net("tiny16")
    assert features.choose_layers(net, ["conv2"]) == [1]
    with pytest.raises(ConfigError, match=r"layer 'conv9' is not one of this network's: conv1, conv2"):
        features.choose_layers(net, ["conv9"])
    with pytest.raises(ConfigError, match="layer conv2 has maps of 2 pixels, which do not pool to 4x4"):
        features.choose_layers(parse_net("z4 k5 g 8@4 3@8 d 8@4 8@2"), [])


def test_labels_come_with_their_pictures(tmp_path: Path) -> None:
    out = str(tmp_path / "digits")
    build_set(Digits("test"), out, size=8, workers=1, block_samples=37)
    images, labels, classes = read_labelled(out)
    source = Digits("test")
    assert (len(images), len(classes)) == (400, 10)
    for position in (0, 36, 37, 399):
        assert labels[position] == source.item(position).label
        assert (images[position] == source.item(position).image).all()


def test_a_set_without_classes_is_refused(tmp_path: Path) -> None:
    out = str(tmp_path / "rooms")
    build_set(Rooms(20, size=16), out, size=16, workers=1)
    with pytest.raises(ShardsError, match="has no classes; build it from a source with labels"):
        read_labelled(out)


def test_the_parts_of_the_digits_share_nothing_and_leave_nothing_out() -> None:
    def pixels(source: Digits) -> list[bytes]:
        return [np.asarray(source.item(position).image).tobytes() for position in range(source.samples)]

    parts = [pixels(Digits(part)) for part in PARTS]
    assert [len(part) for part in parts] == [1097, 300, 400]
    assert sorted(itertools.chain(*parts)) == sorted(pixels(Digits()))
