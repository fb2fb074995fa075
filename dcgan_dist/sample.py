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
from shards.pictures.codec import encode
from shards.storage import store
from shards.storage.paths import argument

FORMS = "a grid as .png, uint8 (n, S, S, 3) as .npy, or a folder, which has no ending, of one .png each"


def _write(images: NDArray[np.uint8], out: str) -> None:
    """As the ending of `out` says."""
    if out.endswith(".npy"):
        store.write_bytes(out, _npy(images))
    elif out.endswith(".png"):
        store.write_bytes(out, pictures.grid_png(images))
    else:
        store.make_folder(out)
        for number, image in enumerate(images):
            store.write_bytes(store.join(out, f"{number:06d}.png"), encode(image, "png"))


def _place(text: str) -> str:
    """Where to write, of an ending that is known."""
    name = text.rstrip("/").rpartition("/")[2]
    if "." in name.lstrip(".") and not text.endswith(("/", ".png", ".npy")):
        raise argparse.ArgumentTypeError(f"{text} has an unknown ending; there are {FORMS}")
    return argument(text)


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
        type=_place,
        default="samples.png",
        help=f"file, folder or URL to write: {FORMS} (default: samples.png)",
    )
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error("--images must be at least 1")
    try:
        if not args.out.endswith((".png", ".npy")) and store.sizes_if_any(args.out):
            raise ToldError(f"{args.out} is not empty; give a new folder for the pictures")
        prepare("warn", allow_tf32=False)
        sampler = load(args.run, step=args.step, device=args.device)
        images = pictures.to_uint8(sampler.sample(args.images, seed=args.seed))
        _write(images, args.out)
    except OSError as error:
        raise ToldError(str(error)) from None
    print(f"{args.images} picture{'s' * (args.images > 1)} of step {sampler.step} in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
