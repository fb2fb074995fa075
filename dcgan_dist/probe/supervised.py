"""The control of table 2: a network of D's shape trained on the labels alone, by random search.

The paper names 64 trials and neither space nor stopping; here learning rate and L2 penalty are log-uniform,
dropout uniform, beta1 0.5 or 0.9, and validation error stops training and picks the trial. A trial follows
from its number alone: ranks or jobs of an array may each do some, and one that is done is not redone.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dcgan_dist import pictures as tensors
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.gan.calibrate import calibrate
from dcgan_dist.gan.model import STD, Discriminator, initialise
from dcgan_dist.probe.labelled import Pictures
from dcgan_dist.probe.protocol import Score, draw_labels, spread
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder.untrusted import WRONG
from dcgan_dist.seeds import seed_for
from shards.arrays import I64, U8
from shards.storage import store

TRIALS = 64
DRAWS = 10
"""Of labels that the best trial is trained on anew."""
EPOCHS = 200
PATIENCE_EPOCHS = 15
BATCH_IMAGES = 64
READING_IMAGES = 500


@dataclass(frozen=True)
class Trial:
    """One point of the search."""

    lr: float
    weight_decay: float
    dropout: float
    beta1: float


@dataclass(frozen=True)
class Outcome:
    """Errors in percent at the best epoch by validation."""

    validation_error: float
    test_error: float
    epochs: int


def draw_trial(number: int, *, seed: int) -> Trial:
    """Trial `number` of the search, the same on every machine."""
    random = np.random.RandomState(seed_for(seed, "trial", number) % 2**32)
    lr, weight_decay = 10 ** random.uniform(-4, -2), 10 ** random.uniform(-6, -2)
    return Trial(
        float(lr), float(weight_decay), float(random.uniform(0, 0.5)), float(random.choice([0.5, 0.9]))
    )


class Classifier(nn.Module):
    """D's layers with a softmax over its last maps instead of the logit."""

    def __init__(self, d: Discriminator, *, classes: int, dropout: float, seed: int) -> None:
        super().__init__()
        self.body = Discriminator(d.net, norm_eps=d.norm_eps, variant=d.variant)
        initialise(self.body, seed)
        self.drop = nn.Dropout(dropout)
        last = d.net.d[-1]
        self.scores = nn.Linear(last.channels * last.side**2, classes)
        nn.init.normal_(self.scores.weight, std=STD, generator=torch.Generator().manual_seed(seed + 1))
        nn.init.zeros_(self.scores.bias)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.scores(self.drop(self.body.maps(images)[-1].contiguous().flatten(1)))
        return scores


def train_one(
    d: Discriminator,
    pictures: Pictures,
    trial: Trial,
    *,
    per_class: int,
    draw: int,
    seed: int,
    device: torch.device,
) -> Outcome:
    """Train on one draw of labels, stopped and judged by validation error; test error of that epoch."""
    cut = pictures.validation_images
    images, labels = pictures.learning[cut:], pictures.learning_labels[cut:]
    purpose = seed_for(seed, "measure", draw)
    rows = draw_labels(labels, per_class, classes=pictures.classes, seed=purpose)
    net = Classifier(d, classes=pictures.classes, dropout=trial.dropout, seed=purpose).to(device)
    optim = torch.optim.Adam(
        net.parameters(), lr=trial.lr, betas=(trial.beta1, 0.999), weight_decay=trial.weight_decay
    )
    best, since = Outcome(100.0, 100.0, 0), 0
    with torch.random.fork_rng(
        devices=[device] if device.type == "cuda" else []
    ):  # dropout draws from torch's own stream
        torch.manual_seed(purpose)
        for epoch in range(1, EPOCHS + 1):
            order = np.random.RandomState(seed_for(purpose, "order", epoch) % 2**32).permutation(rows)
            _epoch(net, optim, images[order], labels[order], device)
            calibrate(net, _batches(images[rows], device))
            found = _error(net, pictures.learning[:cut], pictures.learning_labels[:cut], device)
            since = 0 if found < best.validation_error else since + 1
            if not since:
                best = Outcome(found, _error(net, pictures.test, pictures.test_labels, device), epoch)
            if since == PATIENCE_EPOCHS:
                break
    return best


def _epoch(
    net: Classifier, optim: torch.optim.Optimizer, images: U8, labels: I64, device: torch.device
) -> None:
    net.train()
    targets = torch.split(torch.from_numpy(labels).to(device), BATCH_IMAGES)
    for batch, target in zip(_batches(images, device), targets, strict=True):
        optim.zero_grad()
        torch.autograd.backward(functional.cross_entropy(net(batch), target))
        optim.step()


def _batches(images: U8, device: torch.device, batch_images: int = BATCH_IMAGES) -> Iterator[Tensor]:
    for start in range(0, len(images), batch_images):
        yield tensors.to_device(images[start : start + batch_images], device, torch.float32)


@torch.no_grad()
def _error(net: Classifier, images: U8, labels: I64, device: torch.device) -> float:
    found = [net(batch).argmax(1).cpu() for batch in _batches(images, device, READING_IMAGES)]
    return 100 * float((torch.cat(found).numpy() != labels).mean())


def trial_file(folder: str, name: str, per_class: int, number: int) -> str:
    """Where a trial's outcome is kept."""
    return store.join(folder, f"trials-{name}-{per_class}-{number:03d}.json")


def run_trials(
    d: Discriminator,
    pictures: Pictures,
    numbers: range,
    *,
    folder: str,
    per_class: int,
    seed: int,
    device: torch.device,
) -> None:
    """Do those trials that nobody has done; each is on one draw of labels, the first."""
    for number in numbers:
        url = trial_file(folder, pictures.name, per_class, number)
        if not store.exists(url):
            trial = draw_trial(number, seed=seed)
            outcome = train_one(d, pictures, trial, per_class=per_class, draw=0, seed=seed, device=device)
            facts = {"trial": asdict(trial), **asdict(outcome), "seed": seed}
            store.write_bytes(url, json.dumps(facts, indent=1).encode())


def measure(
    d: Discriminator, pictures: Pictures, *, folder: str, per_class: int, seed: int, here: World, trials: int
) -> tuple[Score, dict[str, Any]]:
    """Search over ranks, then the best trial's test error over fresh draws of labels."""
    share = range(here.rank, trials, here.ranks)
    run_trials(d, pictures, share, folder=folder, per_class=per_class, seed=seed, device=here.device)
    spread(here, here.ranks, lambda rank: 0.0)  # every rank's trials are written
    done = [_read(trial_file(folder, pictures.name, per_class, number)) for number in range(trials)]
    best = min(done, key=lambda facts: float(facts["validation_error"]))
    trial = Trial(**best["trial"])

    def error(draw: int) -> float:
        return train_one(
            d, pictures, trial, per_class=per_class, draw=draw, seed=seed, device=here.device
        ).test_error

    errors = spread(here, DRAWS, error)
    of = f"1.96 standard deviations over {DRAWS} draws"
    mean, interval = float(np.mean(errors)), 1.96 * float(np.std(errors))
    facts = {"trials": trials, "best_trial": best["trial"], "best_epochs": best["epochs"]}
    return Score(f"{per_class} per class", mean, interval, of, None, float(best["validation_error"])), facts


def _read(url: str) -> dict[str, Any]:
    try:
        found = json.loads(store.read_bytes(url))
        Trial(**found["trial"])
        float(found["validation_error"]), found["epochs"]
    except WRONG as error:
        raise ConfigError(f"{url} is not a trial's outcome ({error}); delete it") from None
    assert isinstance(found, dict)
    return found
