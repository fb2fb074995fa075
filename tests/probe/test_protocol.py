"""Draws, selection and the baselines, on the real digits."""

import numpy as np
import pytest
import torch

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import build
from dcgan_dist.probe import kmeans, protocol
from dcgan_dist.probe.features import grey_if_it_is, pixel_features
from dcgan_dist.probe.labelled import read_pictures
from dcgan_dist.probe.methods import make_subject
from dcgan_dist.probe.protocol import Labelled, Score, Sets
from dcgan_dist.ranks.world import World
from dcgan_dist.scores.nearest import nearest_labels

CPU = torch.device("cpu")
ALONE = World.alone()


@pytest.fixture(scope="module")
def raw() -> Sets:
    pictures = read_pictures("digits", None, None, size=8)
    learning, test = (pixel_features(grey_if_it_is(x)) for x in (pictures.learning_raw, pictures.test_raw))
    return Sets(
        Labelled(learning, pictures.learning_labels), 300, Labelled(test, pictures.test_labels), classes=10
    )


def few(sets: Sets, classify: protocol.Classify, grid: tuple[float, ...], draws: int = 30) -> Score:
    return protocol.few_labels(sets, per_class=10, draws=draws, grid=grid, classify=classify, here=ALONE)


def test_raw_pixels_at_100_labels_give_the_known_errors(raw: Sets) -> None:
    svm = few(raw, protocol.svm_classifier(10, CPU), (1e-4, 1e-3))
    assert svm.error == pytest.approx(10.4, abs=0.5)
    assert svm.interval == pytest.approx(2.6, abs=1.5)
    nearest = few(raw, protocol.nearest_classifier(CPU), (0.0,), draws=300)  # cheap, so the mean is sharp
    assert nearest.error == pytest.approx(8.4, abs=0.5)


def test_the_nearest_real_digit_errs_on_five_of_400(raw: Sets) -> None:
    found = nearest_labels(raw.test.rows, raw.train.rows, raw.train.labels, device=CPU)
    assert 100 * (found != raw.test.labels).mean() == 1.25


def test_all_labels_choose_c_by_validation_alone(raw: Sets) -> None:
    asked: list[tuple[int, float]] = []

    def classify(known: Labelled, queries: list[np.ndarray], c: float) -> list[np.ndarray]:
        asked.append((len(known), c))
        truth = {300: raw.validation.labels, 400: raw.test.labels}
        wrong = {300: abs(c - 2), 400: 5 - abs(c - 2)}  # best in validation is worst in test
        return [np.where(np.arange(len(q)) < 10 * wrong[len(q)], -1, truth[len(q)]) for q in queries]

    found = protocol.all_labels(raw, grid=(1.0, 2.0, 3.0), classify=classify)  # type: ignore[arg-type]
    assert (found.c, found.error) == (2.0, 100 * 50 / 400)
    assert asked[-1] == (1397, 2.0)
    assert {known for known, _ in asked[:-1]} == {1097}


def test_draws_are_balanced_repeatable_and_refused_where_labels_lack() -> None:
    labels = np.repeat(np.arange(3), 20)
    rows = protocol.draw_labels(labels, 5, classes=3, seed=1)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5]
    assert len(set(rows.tolist())) == 15
    assert (rows == protocol.draw_labels(labels, 5, classes=3, seed=1)).all()
    assert (rows != protocol.draw_labels(labels, 5, classes=3, seed=2)).any()
    with pytest.raises(
        ConfigError, match="class 0 has 20 training pictures, 21 are to be drawn; lower --per-"
    ):
        protocol.draw_labels(labels, 21, classes=3, seed=1)


def test_whitened_patches_have_no_correlation_and_triangles_no_more_than_half() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    words = kmeans.learn(images, centroids=6, side=3, patches=2000, seed=0, device=CPU)
    found = kmeans.features(words, images)
    assert found.shape == (50, 24)
    # By hand: the first picture's first quadrant, rows and columns 0 to 2 of 6 x 6 positions
    total = np.zeros(6)
    for row in range(3):
        for column in range(3):
            patch = images[0, row : row + 3, column : column + 3, 0].astype(np.float64).ravel()
            patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 10)
            x = (patch - words.mean.numpy()) @ words.whiten.numpy()
            z = np.linalg.norm(x - words.centroids.numpy(), axis=1)
            total += np.maximum(0, z.mean() - z)
    np.testing.assert_allclose(found[0, :6], total, rtol=1e-3)


def test_an_empty_cluster_goes_to_zero_and_others_to_their_mean() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    moved = kmeans._move(torch.tensor([[1.0, 0.0], [-9.0, 0.0]]), x)
    assert moved.tolist() == [[2.0, 0.0], [0.0, 0.0]]


def test_standardising_takes_mean_and_spread_of_the_first_set() -> None:
    train = np.random.default_rng(0).normal(3, 2, (50, 700)).astype(np.float32)
    other = train[:5].copy()
    kmeans.standardise(train, other)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0, ddof=1), 1, atol=1e-2)
    np.testing.assert_array_equal(other, train[:5])


@pytest.mark.slow
def test_kmeans_at_100_labels_gives_the_known_error() -> None:
    pictures = read_pictures("digits", None, None, size=8)
    d = build(parse_net("tiny16"), norm_eps=1e-8, seeds=(1, 2))[1]  # not looked at
    subject = make_subject("kmeans-100-plain", pictures, d, layers=[], seed=42, device=CPU)
    assert few(subject.sets, subject.classify, (1e-3, 1e-2), draws=60).error == pytest.approx(5.4, abs=0.5)
    errors = protocol.all_labels(subject.sets, grid=(1e-3, 1e-2), classify=subject.classify)
    assert errors.error <= 2
