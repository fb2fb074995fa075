"""How many labels, which of them, how C is chosen and how the spread is told (paper, section 5).

C is chosen on validation pictures alone. With all labels, test error is told of a fit to training pictures
and, the same C, to training and validation ones. With few, ten draws of labels choose C and fresh ones are
measured. Features come from elsewhere; draws are spread over ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.probe import svm
from dcgan_dist.ranks.world import World
from dcgan_dist.scores.nearest import nearest_labels
from dcgan_dist.seeds import seed_for
from shards.arrays import F32, I64

AUTHORS_GRID = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
"""C of the authors' SVHN script."""
WIDE_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
CHOOSING_DRAWS = 10


@dataclass(frozen=True)
class Labelled:
    """Rows of features and their labels."""

    rows: F32
    labels: I64

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Sets:
    """`learning` holds `validation_rows` pictures for choosing C, then those for training."""

    learning: Labelled
    validation_rows: int
    test: Labelled
    classes: int

    @property
    def validation(self) -> Labelled:
        return self._part(slice(None, self.validation_rows))

    @property
    def train(self) -> Labelled:
        return self._part(slice(self.validation_rows, None))

    def _part(self, part: slice) -> Labelled:
        return Labelled(self.learning.rows[part], self.learning.labels[part])


@dataclass(frozen=True)
class Score:
    """A test error in percent, and what it was measured with."""

    labels: str
    error: float
    interval: float
    interval_of: str
    c: float | None
    validation_error: float
    error_without_validation_pictures: float | None = None


Classify = Callable[[Labelled, Sequence[F32], float], list[I64]]
"""(labelled rows, sets of queries, C) -> the class of each query."""


def svm_classifier(classes: int, device: torch.device) -> Classify:
    """The L2-SVM of the paper."""

    def classify(known: Labelled, queries: Sequence[F32], c: float) -> list[I64]:
        w = svm.fit(svm.Rows(known.rows, device), known.labels, classes=classes, c=c)
        return [svm.predict(svm.Rows(rows, device), w) for rows in queries]

    return classify


def nearest_classifier(device: torch.device) -> Classify:
    """The nearest neighbour; C has no meaning for it."""

    def classify(known: Labelled, queries: Sequence[F32], c: float) -> list[I64]:
        return [nearest_labels(rows, known.rows, known.labels, device=device) for rows in queries]

    return classify


def all_labels(sets: Sets, *, grid: Sequence[float], classify: Classify) -> Score:
    """C by validation error, then the test error of both fits."""
    validation, train, test = sets.validation, sets.train, sets.test
    errors, partly = {}, {}
    for c in grid:
        on_validation, on_test = classify(train, [validation.rows, test.rows], c)
        errors[c], partly[c] = _error(on_validation, validation.labels), _error(on_test, test.labels)
    c = min(errors, key=errors.__getitem__)
    wholly = _error(classify(sets.learning, [test.rows], c)[0], test.labels)
    interval = 196 * float(np.sqrt(wholly / 100 * (1 - wholly / 100) / len(test)))
    of = f"1.96 standard errors of {len(test)} test pictures"
    return Score(f"all {len(sets.learning)}", wholly, interval, of, c, errors[c], partly[c])


def few_labels(
    sets: Sets,
    *,
    per_class: int,
    draws: int,
    grid: Sequence[float],
    classify: Classify,
    here: World,
    seed: int = 42,
) -> Score:
    """Mean test error over `draws` draws of labels, and 1.96 standard deviations of it."""
    train, validation, test = sets.train, sets.validation, sets.test

    def errors_of(purpose: str, queries: Labelled, count: int, c: float) -> list[float]:
        def error(draw: int) -> float:
            rows = draw_labels(
                train.labels, per_class, classes=sets.classes, seed=seed_for(seed, purpose, draw)
            )
            known = Labelled(np.ascontiguousarray(train.rows[rows]), train.labels[rows])
            return _error(classify(known, [queries.rows], c)[0], queries.labels)

        return spread(here, count, error)

    means = {c: float(np.mean(errors_of("choose", validation, CHOOSING_DRAWS, c))) for c in grid}
    c = min(means, key=means.__getitem__)
    errors = errors_of("measure", test, draws, c)
    of = f"1.96 standard deviations over {draws} draws"
    return Score(
        f"{per_class} per class", float(np.mean(errors)), 1.96 * float(np.std(errors)), of, c, means[c]
    )


def draw_labels(labels: I64, per_class: int, *, classes: int, seed: int) -> I64:
    """Positions of `per_class` samples of each class. Raises ConfigError where there are too few."""
    random = np.random.RandomState(seed % 2**32)
    picked = []
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        if len(rows) < per_class:
            raise ConfigError(
                f"class {label} has {len(rows)} training pictures, {per_class} are to be "
                "drawn; lower --per-class"
            )
        picked.append(random.permutation(rows)[:per_class])
    return np.concatenate(picked)


def spread(here: World, count: int, work: Callable[[int], float]) -> list[float]:
    """`work(i)` for i below `count`, each done by one rank and told to all."""
    found = torch.zeros(count, dtype=torch.float64, device=here.device)
    for item in range(here.rank, count, here.ranks):
        found[item] = work(item)
    values: list[float] = here.sum(found).tolist()
    return values


def _error(found: I64, labels: I64) -> float:
    return 100 * float((found != labels).mean())
