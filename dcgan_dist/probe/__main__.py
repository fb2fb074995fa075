"""`python -m dcgan_dist.probe cifar10|svhn|digits|imagefolder RUN`, and `probe mnist OUT`.

Results are kept in RUN/probe/NAME.json:

    {"name", "command", "dataset", "test", "run", "step", "protocol", "paper", "results": [
        {"method", "labels", "error", "interval", "interval_of", "validation_error", "c", ...facts}]}

Errors are percent of test pictures; a method's facts name its features and how batch norm was frozen.
"""

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import DEVICES
from dcgan_dist.gan.model import Discriminator
from dcgan_dist.probe import mnist, supervised
from dcgan_dist.probe.features import choose_layers
from dcgan_dist.probe.labelled import Pictures, read_pictures
from dcgan_dist.probe.methods import Subject, check_names, make_subject
from dcgan_dist.probe.protocol import AUTHORS_GRID, WIDE_GRID, Score, all_labels, few_labels
from dcgan_dist.ranks import launcher, world
from dcgan_dist.ranks.lost import LostRanksError
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder import untrusted
from dcgan_dist.run_folder.networks import load_discriminator
from shards.command import command, part
from shards.errors import ToldError
from shards.redact import redacted
from shards.storage import store
from shards.storage.paths import argument

TIMEOUT_SECONDS = 36_000.0
"""Ranks wait for the slowest trial."""


@dataclass(frozen=True)
class Protocol:
    """How many labels are used, how often they are drawn, and the errors (percent) the paper reports."""

    per_class: int
    draws: int
    grid: tuple[float, ...]
    all_labels: bool
    methods: str
    paper: dict[str, float]


PROTOCOLS = {
    "cifar10": Protocol(
        400, 10, AUTHORS_GRID, True, "dcgan,random,raw,kmeans-1600,kmeans-4800",
        {"dcgan, all labels": 17.2, "dcgan, 400 per class": 26.2, "kmeans-4800, all labels": 19.4},
    ),
    "svhn": Protocol(
        100, 100, AUTHORS_GRID, False, "dcgan,random,raw,nearest,supervised",
        {"dcgan": 22.48, "supervised, validation error": 28.87, "nearest": 77.93},
    ),
    "digits": Protocol(
        10, 30, WIDE_GRID, True, "dcgan,random,raw,nearest,kmeans-100,kmeans-100-plain,supervised", {}
    ),
    "imagefolder": Protocol(10, 30, WIDE_GRID, True, "dcgan,random,raw,nearest", {}),
}  # fmt: skip


def probe(args: argparse.Namespace, here: World, *, command: str) -> dict[str, Any]:
    """Measure every method asked for; rank 0 writes the result."""
    protocol = PROTOCOLS[args.dataset]
    per_class, draws = args.per_class or protocol.per_class, args.draws or protocol.draws
    names = (args.methods or protocol.methods).split(",")
    check_names(names)
    d, _, step = load_discriminator(args.run, step=args.step)
    layers = choose_layers(d.net, args.layers.split(",") if args.layers else ())
    pictures = read_pictures(args.dataset, args.data, args.test, size=d.net.image_size)
    d.to(here.device)
    folder = untrusted.folder(args.run, "probe")
    if here.rank == 0:
        store.make_folder(folder)
    results = []
    for name in names:
        if name == "supervised":
            found = _supervised(args, d, pictures, folder, per_class, here)
        else:
            subject = make_subject(name, pictures, d, layers=layers, seed=args.seed, device=here.device)
            grid = _grid(name, protocol)
            found = _measure(subject, protocol, grid, per_class, draws, here, args.seed)
        for score, facts in found:
            results.append({"method": name, **asdict(score), **facts})
            if here.rank == 0:
                print(_line(name, score), flush=True)
    told = {
        "name": args.dataset,
        "command": command,
        "dataset": args.data or "scikit-learn's digits",
        "test": args.test,
        "run": args.run,
        "step": step,
        "protocol": f"{per_class} labels per class, {draws} draws, L2-SVM, C chosen on "
        f"{pictures.validation_images} validation pictures, {len(pictures.test)} test pictures",
        "paper": protocol.paper,
        "results": results,
    }
    if here.rank == 0 and results:
        url = store.join(folder, f"{args.dataset}.json")
        told["results"] = _measured_before(url, told, names) + results
        store.write_bytes(url, json.dumps(redacted(told), indent=1).encode())
    return told


def _measured_before(url: str, told: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Results of other methods on the same pictures, checkpoint and protocol: they stay."""
    if not store.exists(url):
        return []
    try:
        before = json.loads(store.read_bytes(url))
        same = all(before[key] == redacted(told[key]) for key in ("dataset", "test", "step", "protocol"))
        return [result for result in before["results"] if same and result["method"] not in names]
    except untrusted.WRONG as error:
        raise ConfigError(f"{url} holds no results of a probe ({error}); move it away") from None


def _grid(name: str, protocol: Protocol) -> tuple[float, ...]:
    if name == "nearest":
        return (0.0,)
    return protocol.grid if name in ("dcgan", "random") else WIDE_GRID


Found = list[tuple[Score, dict[str, Any]]]


def _measure(
    subject: Subject,
    protocol: Protocol,
    grid: tuple[float, ...],
    per_class: int,
    draws: int,
    here: World,
    seed: int,
) -> Found:
    sets, classify = subject.sets, subject.classify
    few = few_labels(
        sets, per_class=per_class, draws=draws, grid=grid, classify=classify, here=here, seed=seed
    )
    found = [(few, subject.facts)]
    if protocol.all_labels:
        found.append((all_labels(sets, grid=grid, classify=classify), subject.facts))
    return found


def _supervised(
    args: argparse.Namespace,
    d: Discriminator,
    pictures: Pictures,
    folder: str,
    per_class: int,
    here: World,
) -> Found:
    """The whole search, or only `--part i/n` of its trials, as one job of an array does it."""
    options = {"folder": folder, "per_class": per_class, "seed": args.seed}
    if args.part is not None:
        number, parts = args.part
        numbers = range(number - 1 + parts * here.rank, args.trials, parts * here.ranks)
        supervised.run_trials(d, pictures, numbers, device=here.device, **options)
        return []
    return [supervised.measure(d, pictures, here=here, trials=args.trials, **options)]


def _line(name: str, score: Score) -> str:
    c = "" if score.c is None else f", C {score.c:g}"
    return (
        f"{name:<12} {score.labels:<14} {score.error:6.2f} +- {score.interval:.2f} % error "
        f"({score.interval_of}{c})"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.probe",
        description="Test error of classifiers on a discriminator's features, and on what it has to beat.",
    )
    parser.add_argument("dataset", choices=[*PROTOCOLS, "mnist"], help="the protocol")
    parser.add_argument("run", type=argument, help="run folder or URL; mnist: where its networks are kept")
    parser.add_argument("--data", type=argument, help="labelled dataset to learn from (not for digits)")
    parser.add_argument("--test", type=argument, help="labelled dataset to be tested on")
    parser.add_argument("--step", type=int, help="checkpoint to use (default: the newest)")
    parser.add_argument("--layers", help="of D, like conv2,conv3 (default: all)")
    parser.add_argument("--methods", help="like dcgan,random,raw,nearest,kmeans-1600,supervised")
    parser.add_argument("--per-class", type=int, help="labels of each class (default: the paper's)")
    parser.add_argument("--draws", type=int, help="draws of labels (default: the paper's)")
    parser.add_argument("--trials", type=int, default=supervised.TRIALS, help="of the search (default: 64)")
    parser.add_argument("--part", type=part, metavar="I/N", help="do only this part of the trials")
    parser.add_argument("--epochs", type=int, default=mnist.EPOCHS, help="of mnist (default: 200)")
    parser.add_argument("--widths", type=_widths, help="of mnist's networks (default: 1024,128,64)")
    parser.add_argument("--samples", type=_widths, help="of mnist's 1-NN (default: 1000,10000,100000)")
    parser.add_argument("--seed", type=int, default=42, help="(default: 42)")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="(default: auto)")
    return parser


def _widths(text: str) -> tuple[int, ...]:
    if not all(word.isdigit() and int(word) for word in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1024,128,64")
    return tuple(int(word) for word in text.split(","))


@command
def main(argv: Sequence[str]) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    parser = _parser()
    args = parser.parse_args(argv)
    for name in ("per_class", "draws", "trials", "epochs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    command = f"python -m dcgan_dist.probe {shlex.join(argv)}"
    try:
        with world.join(device=args.device, timeout_seconds=TIMEOUT_SECONDS) as here:
            (mnist.probe if args.dataset == "mnist" else probe)(args, here, command=command)
    except ToldError as error:
        if launcher.tells(error):
            raise
        return 2
    except LostRanksError as error:
        print(f"error: rank {launcher.launched_rank()}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
