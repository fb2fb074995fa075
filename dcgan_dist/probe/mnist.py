"""The paper's appendix (table 3): how well a nearest neighbour classifies real test digits when it knows only
those that a class-conditional generator drew.

Trained on any labelled set of grey pictures: a convolutional and a dense GAN, half of the epochs at a
constant learning rate, half at one that falls to 0. Controls: real pictures for samples, shuffled labels.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import one_hot

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config, Data, Optim, Train
from dcgan_dist.gan.batchnorm import synchronise
from dcgan_dist.gan.calibrate import calibrate
from dcgan_dist.gan.model import initialise
from dcgan_dist.gan.noise import Noise, draw_noise
from dcgan_dist.gan.step import update_d, update_g
from dcgan_dist.probe.conditional import NETWORKS, WIDTHS, Z_SIZE
from dcgan_dist.probe.labelled import SHUFFLE_SEED, VALIDATION_IMAGES
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder import untrusted
from dcgan_dist.scores.nearest import Nearest, nearest_labels
from dcgan_dist.seeds import seed_for
from dcgan_dist.training.players import make_cast, player
from shards.arrays import F32, I64
from shards.dataset.labels import read_labelled
from shards.redact import redact, redacted
from shards.storage import store

EPOCHS = 200
SAMPLES = (1_000, 10_000, 100_000)
BATCH_IMAGES = 128
CHUNK_SAMPLES = 1_000
CALIBRATION_BATCHES = 100
PAPER = {"real": 3.1, "mlp, 50,000 samples": 6.28, "dcgan, 50,000 samples": 2.98, "dcgan, 10 million": 1.48}
"""Table 3 as others quote it; not read in the original."""


@dataclass(frozen=True)
class Digits:
    """Grey pictures (n, S, S) in [0, 1] with labels (n,)."""

    images: F32
    labels: I64
    test_images: F32
    test_labels: I64
    classes: int

    @property
    def side(self) -> int:
        return int(self.images.shape[1])


def read_digits(data: str | None, test: str | None) -> Digits:
    """All but the validation pictures of `data`. Raises ConfigError or ShardsError."""
    if data is None or test is None:
        raise ConfigError("mnist needs --data and --test, two datasets with labels")
    images, labels, classes = read_labelled(data)
    test_images, test_labels, test_classes = read_labelled(test)
    if test_classes != classes or test_images.shape[1:] != images.shape[1:]:
        raise ConfigError(f"{test} has other classes or sizes than {data}; give the same dataset's test set")
    if images.shape[1] % 4:
        raise ConfigError(
            f"{data} holds {images.shape[1]}x{images.shape[1]} pictures; the networks need a multiple of 4"
        )
    # Small sets give all to training: there is nothing that validation would choose here.
    kept = np.random.RandomState(SHUFFLE_SEED).permutation(len(images))
    kept = kept[VALIDATION_IMAGES:] if len(images) >= 5 * VALIDATION_IMAGES else kept
    return Digits(_grey(images[kept]), labels[kept], _grey(test_images), test_labels, len(classes))


def _grey(images: NDArray[np.uint8]) -> F32:
    grey: F32 = images.astype(np.float32).mean(3) / np.float32(255)
    return grey


def train(
    kind: str, digits: Digits, here: World, *, epochs: int, widths: tuple[int, ...], seed: int
) -> tuple[nn.Module, nn.Module]:
    """G and D of `kind` after `epochs`; `alternate` updates on every rank's rows of the global batch."""
    config = Config(
        data=Data(batch_images=BATCH_IMAGES),
        optim=Optim(weight_decay=2.5e-5),  # authors' MNIST code
        train=Train(seed=seed, epochs=epochs, precision="float32"),
    )
    nets = [build(digits.side, digits.classes, widths) for build in NETWORKS[kind]]
    for name, net in zip("gd", nets, strict=True):
        initialise(net, seed_for(seed, f"{kind} {name}"))
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    examples = (
        _random_noise(2, digits.classes, seed)[0],
        _labelled_images(images[:2], labels[:2], digits.classes),
    )
    g, d = (player(net, config, here, example) for net, example in zip(nets, examples, strict=True))
    cast = make_cast(config, here)
    steps = len(images) // BATCH_IMAGES
    rows = here.share(BATCH_IMAGES)
    noise = Noise(rows, Z_SIZE, kind="uniform", device=here.device)
    for epoch in range(epochs):
        order = np.random.RandomState(seed_for(seed, "order", epoch) % 2**32).permutation(len(images))
        for each in (g, d):
            each.optim.param_groups[0]["lr"] = config.optim.lr * min(1.0, 2 - 2 * epoch / epochs)
        for step in range(epoch * steps, (epoch + 1) * steps):
            at = order[step % steps * BATCH_IMAGES :][rows.start : rows.stop]
            z = noise.draw(seed_for(seed, "z", step))
            z = _labelled_noise(z, labels[at].to(here.device), digits.classes)
            if step % 2:
                real = _labelled_images(images[at], labels[at], digits.classes).to(here.device)
                update_d(g, d, real=real, z=z, cast=cast)
            else:
                update_g(g, d, z=z, cast=cast)
    return g.bare, d.bare


def _labelled_noise(z: Tensor, labels: Tensor, classes: int) -> Tensor:
    return torch.cat([z, one_hot(labels, classes).to(z)], dim=1)


def _labelled_images(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    maps = one_hot(labels, classes).to(images)[:, :, None, None].expand(-1, -1, *images.shape[1:])
    return torch.cat([images[:, None], maps], dim=1)


def draw(g: nn.Module, chunk: int, *, classes: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Chunk number `chunk` of the samples: rows (n, S x S) and labels (n,), drawn evenly."""
    z, labels = _random_noise(CHUNK_SAMPLES, classes, seed_for(seed, "samples", chunk))
    with torch.no_grad():
        return g(z.to(device))[:, 0].flatten(1), labels.to(device)


def _random_noise(images: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    labels = torch.randint(classes, (images,), generator=torch.Generator().manual_seed(seed + 1))
    return _labelled_noise(draw_noise(images, Z_SIZE, kind="uniform", seed=seed), labels, classes), labels


def nearest_errors(
    g: nn.Module, digits: Digits, here: World, *, samples: tuple[int, ...], seed: int
) -> dict[int, float]:
    """Test error in percent by the number of samples known, rounded up to whole chunks a rank."""

    def batches() -> Iterator[Tensor]:
        for i in range(CALIBRATION_BATCHES):
            yield _random_noise(BATCH_IMAGES, digits.classes, seed_for(seed, "freeze", i))[0].to(here.device)

    synchronise(g, None)  # every rank sees the same batches
    calibrate(g, batches())
    nearest = Nearest(
        torch.from_numpy(digits.test_images.reshape(len(digits.test_labels), -1)).to(here.device)
    )
    told, chunk = {}, 0
    for wanted in sorted(samples):
        stop = -(-wanted // CHUNK_SAMPLES)
        for number in range(chunk, stop):
            if number % here.ranks == here.rank:
                nearest.see(*draw(g, number, classes=digits.classes, seed=seed, device=here.device))
        chunk = stop
        told[stop * CHUNK_SAMPLES] = _error(_agree(nearest, here), digits.test_labels)
    return told


def _agree(nearest: Nearest, here: World) -> I64:
    """The labels of the nearest over all ranks."""
    distances, labels = here.gather(nearest.distances), here.gather(nearest.labels)
    found: I64 = labels.gather(0, distances.argmin(0, keepdim=True))[0].long().cpu().numpy()
    return found


def _error(found: I64, labels: I64) -> float:
    return 100 * float((found != labels).mean())


def controls(digits: Digits, *, seed: int, device: torch.device) -> dict[str, float]:
    """Test errors in percent of the nearest real neighbour, with right and with shuffled labels."""
    known = digits.images.reshape(len(digits.images), -1)
    queries = digits.test_images.reshape(len(digits.test_images), -1)
    shuffled = np.random.RandomState(seed).permutation(digits.labels)
    return {
        name: _error(nearest_labels(queries, known, labels, device=device), digits.test_labels)
        for name, labels in (("real", digits.labels), ("real, labels shuffled", shuffled))
    }


def _plain(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}


def probe(args: argparse.Namespace, here: World, *, command: str) -> dict[str, Any]:
    """Both GANs and both controls; rank 0 writes RUN/probe/mnist.json and the networks beside it."""
    widths, samples = args.widths or WIDTHS, args.samples or SAMPLES
    if len(widths) != 3:
        raise ConfigError(f"--widths needs three numbers like 1024,128,64, not {len(widths)}")
    digits = read_digits(args.data, args.test)
    if BATCH_IMAGES % here.ranks or len(digits.labels) < BATCH_IMAGES:
        raise ConfigError(
            f"batches of {BATCH_IMAGES} do not divide over {here.ranks} ranks, or are more than all"
        )
    folder = untrusted.folder(args.run, "probe")
    errors = controls(digits, seed=args.seed, device=here.device)
    results = [
        {"method": name, "known": len(digits.labels), "error": error} for name, error in errors.items()
    ]
    for kind in NETWORKS:
        g, d = train(kind, digits, here, epochs=args.epochs, widths=widths, seed=args.seed)
        if here.rank == 0:
            store.make_folder(store.join(folder, f"mnist-{kind}"))
            parts = {name: _plain(net) for name, net in (("g", g), ("d", d))}
            facts = {"epochs": args.epochs, "widths": widths, "command": redact(command)}
            checkpoint.write(store.join(folder, f"mnist-{kind}"), 0, parts, facts)
        found = nearest_errors(g, digits, here, samples=samples, seed=args.seed)
        results += [{"method": kind, "known": known, "error": error} for known, error in found.items()]
    told = {
        "name": "mnist",
        "command": command,
        "dataset": args.data,
        "test": args.test,
        "protocol": f"1-NN of {len(digits.test_labels)} test pictures among samples of even labels, "
        f"{args.epochs} epochs of {len(digits.labels)} pictures, widths {widths}",
        "batch_norm": f"frozen: plain mean over {CALIBRATION_BATCHES} batches of {BATCH_IMAGES} z",
        "paper": PAPER,
        "results": results,
    }
    if here.rank == 0:
        for result in results:
            print(f"{result['method']:<22} {result['known']:>9,} known {result['error']:6.2f} % error")
        store.write_bytes(store.join(folder, "mnist.json"), json.dumps(redacted(told), indent=1).encode())
    return told
