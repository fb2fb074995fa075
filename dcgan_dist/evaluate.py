"""How good the samples of a run are: `python -m dcgan_dist.evaluate RUN`, on one process or under torchrun.

Prints every score beside its floor, which real pictures get against other real ones, and the sliced
Wasserstein distance of the same generator before its first step. RUN/scores/ keeps them with their protocol.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.config.settings import DEVICES
from dcgan_dist.gan.model import initialise
from dcgan_dist.ranks import launcher, world
from dcgan_dist.ranks.lost import LostRanksError
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder import untrusted
from dcgan_dist.run_folder.networks import load
from dcgan_dist.scores.inception import Inception
from dcgan_dist.scores.precision_recall import looks_copied
from dcgan_dist.scores.suite import draw, protocol, read_reals, score
from dcgan_dist.scores.swd import mean_swd
from dcgan_dist.seeds import seed_for
from shards.command import callable_module, command
from shards.dataset.index import load as load_index
from shards.dataset.reader import Blocks
from shards.errors import ToldError
from shards.redact import redacted
from shards.storage import store
from shards.storage.paths import argument

TIMEOUT_SECONDS = 3600.0
IMAGES = 1024
"""Samples that are scored, where the dataset has twice as many pictures."""
LEAST_IMAGES = 16
log = logging.getLogger("dcgan_dist")


@dataclass(frozen=True)
class Evaluation:
    """The scores of one checkpoint, and of the same generator with fresh weights."""

    run: str
    step: int
    scores: dict[str, float]
    swd_at_step_0: float
    protocol: dict[str, Any]


def evaluate(
    run: str,
    here: World,
    *,
    images: int | None,
    data: str | None = None,
    step: int | None = None,
    inception: str | None = None,
    inception_sha256: str | None = None,
) -> Evaluation:
    """All scores; every rank must call it. Raises CheckpointError, ConfigError, ShardsError.

    Without `images`, IMAGES of them or half of what a smaller dataset has.
    What the run's settings say of Inception is not followed: it is a program, and the run may be another's.
    """
    sampler = load(run, step=step, device=here.device.type)
    net = Inception(inception, inception_sha256, here.device) if inception else None
    if net is None and sampler.config.eval.inception and here.rank == 0:
        log.warning("no FID and KID: give --inception and --inception-sha256; a run's own are not believed")
    url = data or sampler.config.data.url
    index = load_index(url)
    images = images or max(LEAST_IMAGES, min(IMAGES, index.kept // 2))
    reals = read_reals(Blocks(url, index), images, here)
    scores = score(reals, draw(sampler, images, here), here, net)
    initialise(sampler.generator, seed_for(sampler.config.train.seed, "g"))
    (fresh,) = mean_swd(reals.reference, [draw(sampler, images, here)], here)
    return Evaluation(run, sampler.step, scores, fresh, protocol(images, url, net))


def from_python(
    run: Any,
    *,
    images: int | None = None,
    data: str | None = None,
    step: int | None = None,
    inception: str | None = None,
    inception_sha256: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """What the command keeps, of a run's folder or URL, or of what `dcgan_dist.train` returned.

    `scores` by name, each with its floor, and their protocol. Every rank must call it. Raises
    CheckpointError, ConfigError, ShardsError.
    """
    with world.join(device=device, timeout_seconds=TIMEOUT_SECONDS, owns_process=False) as here:
        found = evaluate(
            getattr(run, "dir", run),
            here,
            images=images,
            data=data,
            step=step,
            inception=inception,
            inception_sha256=inception_sha256,
        )
    return asdict(found)


HIGHER, LOWER = ("precision", "recall", "density", "coverage"), ("swd", "ndb", "js", "fid", "kid")


def _better(name: str) -> str:
    """Which way a score is better; of distances alone nothing is said."""
    plain = name.removeprefix("inception_")
    return "higher" if plain in HIGHER else "lower" if plain in LOWER else ""


def lines(found: Evaluation) -> list[str]:
    """What the command prints."""
    images = found.protocol["images"]
    head = f"  {'':<22}{'step ' + str(found.step):>12}{'real (the floor)':>18}  better is"
    told = [f"{images} pictures a side", head]
    for name, value in found.scores.items():
        if not name.endswith("_floor"):
            floor = found.scores.get(f"{name}_floor")
            shown = "" if floor is None else f"{floor:.4g}"
            told.append(f"  {name:<22}{value:>12.4g}{shown:>18}  {_better(name)}".rstrip())
    told.append(f"  {'swd at step 0':<22}{found.swd_at_step_0:>12.4g}")
    if looks_copied(found.scores):
        told.append(
            "warning: samples lie at single pictures of the reference, nearer than new ones do: copies"
        )
    return [*told, _sentence(found)]


def _sentence(found: Evaluation) -> str:
    """The distance in words."""
    distance, floor = found.scores["swd"], found.scores["swd_floor"]
    gain = found.swd_at_step_0 / max(distance, 1e-12)
    since = f"{gain:.1f}x nearer than at step 0" if gain >= 1.05 else "no nearer than at step 0"
    return f"By swd the samples are {since}, and at {distance / max(floor, 1e-12):.1f}x the floor."


@command
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.evaluate", description="Scores of a run's samples."
    )
    parser.add_argument("run", type=argument, help="run folder or URL")
    parser.add_argument(
        "--images", type=int, help=f"samples, and half the reals (default: {IMAGES}, or what a small set has)"
    )
    parser.add_argument("--data", type=argument, help="dataset (default: the one the run was trained on)")
    parser.add_argument("--step", type=int, help="checkpoint to use (default: the newest)")
    parser.add_argument("--inception", type=argument, help="TorchScript file for FID and KID; a program")
    parser.add_argument("--inception-sha256", help="the sum of a file that you trust")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="(default: auto)")
    args = vars(parser.parse_args(argv))
    if args["images"] is not None and args["images"] < LEAST_IMAGES:
        parser.error(f"--images must be at least {LEAST_IMAGES}")
    if args["inception_sha256"] and not args["inception"]:
        parser.error("--inception-sha256 needs --inception FILE")
    try:
        with world.join(device=args.pop("device"), timeout_seconds=TIMEOUT_SECONDS) as here:
            found = evaluate(args.pop("run"), here, **args)
            if here.rank == 0:
                _keep(found)
                print("\n".join(lines(found)))
    except ToldError as error:
        if launcher.tells(error):
            raise
        return 2
    except LostRanksError as error:
        print(f"error: rank {launcher.launched_rank()}: {error}", file=sys.stderr)
        return 1
    return 0


def _keep(found: Evaluation) -> None:
    folder = untrusted.folder(found.run, "scores")
    store.make_folder(folder)
    name = f"{checkpoint.stem(found.step)}.json"
    store.write_bytes(store.join(folder, name), json.dumps(redacted(asdict(found)), indent=1).encode())


callable_module(__name__, from_python)

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
