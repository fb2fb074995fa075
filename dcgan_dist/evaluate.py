"""How far samples are from real pictures: `python -m dcgan_dist.evaluate RUN`.

Prints the sliced Wasserstein distance of the run's samples, of the same generator before its first step,
and of real pictures against other real ones (the floor that the number of pictures allows).
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dcgan_dist import pictures
from dcgan_dist.checkpoint import CheckpointError
from dcgan_dist.model import initialise
from dcgan_dist.sample import Sampler, load
from dcgan_dist.seeds import seed_for
from dcgan_dist.settings import ConfigError
from dcgan_dist.swd import mean_swd
from shards import ShardsError
from shards.index import load as load_index
from shards.reader import Blocks

CALIBRATION_BATCHES = 20


def read_real(url: str, images: int) -> NDArray[np.uint8]:
    """`images` pictures of a dataset, uint8 (images, S, S, 3), from the beginning."""
    index = load_index(url)
    if index.kept < images:
        raise ShardsError(f"{url} has {index.kept} pictures, {images} are needed; lower --images")
    return Blocks(url, index).first(images)


def draw(sampler: Sampler, images: int) -> NDArray[np.uint8]:
    """Samples with batch norm calibrated, uint8 (images, S, S, 3)."""
    sampler.freeze(CALIBRATION_BATCHES)
    return pictures.to_uint8(sampler.sample(images))


def evaluate(run: str, *, images: int, data: str | None = None) -> dict[str, float]:
    """Mean sliced Wasserstein distances x 1000: `floor`, `step N` and `step 0`."""
    sampler = load(run)
    real = read_real(data or sampler.config.data.url, 2 * images)
    sets = {"floor": real[1::2], f"step {sampler.step}": draw(sampler, images)}
    initialise(sampler.generator, seed_for(sampler.config.train.seed, "g"))
    sets["step 0"] = draw(sampler, images)
    return dict(zip(sets, mean_swd(real[::2], list(sets.values())), strict=True))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.evaluate", description="Sliced Wasserstein distance of a run's samples."
    )
    parser.add_argument("run", help="run folder or URL")
    parser.add_argument(
        "--images", type=int, default=1024, help="samples, and half the reals (default: 1024)"
    )
    parser.add_argument("--data", help="dataset (default: the one the run was trained on)")
    args = parser.parse_args(argv)
    try:
        told = evaluate(args.run, images=args.images, data=args.data)
    except (CheckpointError, ConfigError, ShardsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"sliced Wasserstein distance x 1000, {args.images} pictures a side, lower is better:")
    for name, distance in told.items():
        label = "real against real (the floor)" if name == "floor" else f"samples of {name}"
        print(f"  {label:<30} {distance:8.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
