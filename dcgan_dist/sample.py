"""Draw from a trained or exported generator: `python -m dcgan_dist.sample`; from Python, `load`."""

import argparse
import io
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dcgan_dist import pictures
from dcgan_dist.config.settings import DEVICES
from dcgan_dist.library import load
from dcgan_dist.ranks.determinism import prepare
from shards.command import command
from shards.errors import ToldError
from shards.storage import store
from shards.storage.paths import argument


def _npy(images: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, images, allow_pickle=False)
    return stream.getvalue()


@command
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.sample", description="Draw pictures from a trained generator."
    )
    parser.add_argument("run", type=argument, help="run folder or URL, or an export's folder")
    parser.add_argument("--images", type=int, default=64, help="how many (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="other pictures for another seed (default: 0)")
    parser.add_argument("--step", type=int, help="checkpoint to use (default: the newest)")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="(default: auto)")
    parser.add_argument(
        "--out",
        type=argument,
        default="samples.png",
        help="grid to write, or .npy for uint8 (n, S, S, 3) (default: samples.png)",
    )
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error("--images must be at least 1")
    try:
        prepare("warn", allow_tf32=False)
        sampler = load(args.run, step=args.step, device=args.device)
        images = pictures.to_uint8(sampler.sample(args.images, seed=args.seed))
        store.write_bytes(args.out, _npy(images) if args.out.endswith(".npy") else pictures.grid_png(images))
    except OSError as error:
        raise ToldError(str(error)) from None
    print(f"{args.images} pictures of step {sampler.step} in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
