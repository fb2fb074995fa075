"""Where the weight gradient as one matrix product gains over torch's: the rule of dcgan_dist.convolution.

Forward and backward of single layers, the two ways in turn on one thread, in seconds of this process's CPU
time, of which the least of some turns counts. The layers are those of the demo's and the paper's networks, in
order of weights for each number of their input.
"""

import argparse
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.record import capability, record
from dcgan_dist.gan import convolution
from dcgan_dist.gan.convolution import Conv2d, ConvTranspose2d
from dcgan_dist.training.players import keep_freed_memory
from dcgan_dist.training.precision import AUTOCAST

# Transposed or not, maps of input and output, kernel, side of the input, images.
LAYERS = [
    (False, 64, 128, 4, 32, 64),
    (False, 32, 64, 4, 16, 64),
    (False, 32, 64, 4, 16, 32),
    (True, 256, 128, 4, 8, 128),
    (False, 128, 256, 4, 16, 64),
    (True, 256, 128, 5, 16, 32),
    (False, 64, 128, 4, 8, 64),
    (True, 256, 128, 5, 16, 16),
    (False, 64, 128, 4, 8, 32),
    (False, 256, 512, 4, 8, 64),
    (True, 512, 256, 5, 8, 32),
    (True, 512, 256, 4, 4, 64),
    (True, 512, 256, 5, 8, 16),
    (True, 1024, 512, 5, 4, 32),
]


def gain(layer: nn.Module, x: Tensor, dtype: torch.dtype, repeats: int) -> float:
    """How many times as fast the layer is with the product as it is without."""
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        dy = torch.randn_like(layer(x))

        def step() -> None:
            layer.zero_grad(set_to_none=True)
            x.grad = None
            layer(x).backward(dy)

        with _always(True):
            step()
        with _always(False):
            step()
        seconds: dict[bool, float] = {True: math.inf, False: math.inf}
        for _ in range(repeats):
            for product in seconds:
                with _always(product):
                    seconds[product] = min(seconds[product], _cpu_seconds(step))
    return seconds[False] / seconds[True]


def _always(product: bool) -> AbstractContextManager[object]:
    return patch.object(convolution, "_gains", return_value=product)


def _cpu_seconds(step: Callable[[], None]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    kind = "avx2" if capability() == "AVX2" else "cpu"
    for precision in ("float32", *["bfloat16"] * ("bf16" in capability())):
        for transposed, before, after, kernel, side, images in LAYERS:
            sizes = {"stride": 2, "padding": (kernel - 1) // 2, "bias": False}
            layer = (
                ConvTranspose2d(before, after, kernel, output_padding=kernel % 2, **sizes)
                if transposed
                else Conv2d(before, after, kernel, **sizes)
            ).to(memory_format=torch.channels_last)
            x = torch.randn(images, before, side, side).to(memory_format=torch.channels_last).requires_grad_()
            found = gain(layer, x, AUTOCAST.get(precision, torch.float32), args.repeats)
            ratio = layer.weight.numel() / x.numel()
            name = f"{before}@{side}{'up' if transposed else 'down'}{after}/k{kernel}/{images}"
            what = f"convolution/{kind}/{precision}/{name}"
            config = {"weights_per_input": round(ratio, 3), "turns": args.repeats}
            record("convolution", what, [found], unit="ratio", config=config)


if __name__ == "__main__":
    main()
