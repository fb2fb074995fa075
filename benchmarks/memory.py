"""Memory of one rank, by network and by its share of the batch: weights, optimisers, activations.

Two steps in a process of their own; on a CPU the peak of the whole process, Python and torch with it, on a
GPU that of what torch allocated. The feed comes on top: docs/guide.md has its formula.
"""

import argparse
from contextlib import ExitStack

import torch

from benchmarks.record import apart, record
from benchmarks.step import FILTERS_64, make_ours
from shards.machine import peak_memory_bytes

NETS = {"dcgan64": "dcgan64", "64_filters": FILTERS_64, "imagenet32": "imagenet32", "svhn32": "svhn32"}


class Peak:
    """The peak in bytes after two steps."""

    def __init__(self, net: str, device: torch.device, images: int, precision: str) -> None:
        self.step, self.device = make_ours(net, device, images, precision, 2), device

    def __call__(self) -> int:
        self.step()
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return peak_memory_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--images", type=int, nargs="+", default=[16, 128], help="of one rank")
    parser.add_argument("--precision", default="bfloat16")
    args = parser.parse_args()
    device = torch.device(args.device)
    for name, net in NETS.items():
        for images in args.images:
            with ExitStack() as stack:
                peak = stack.enter_context(apart(Peak, net, device, images, args.precision))()
            config = {"net": net, "images": images, "precision": args.precision}
            record("memory", f"memory/{device.type}/{name}/{images}", [peak / 1e6], unit="MB", config=config)


if __name__ == "__main__":
    main()
