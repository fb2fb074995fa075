"""Images per second of one training step, data already on the device: ours against the plain loop, the plain
loop with each of our switches alone, and the machine's rate of matrix products.

The networks are the same (64 filters, 4x4 kernels, 64x64 pictures), both update D and G on every minibatch.
Every contender has a process of its own, and they take turns. A step's operations are counted, not estimated.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import PlainLoop, Switches
from benchmarks.record import apart, interleaved, ratios, record
from dcgan_dist import convolution
from dcgan_dist.config import Config, Data, Model, Train
from dcgan_dist.nets import parse_net
from dcgan_dist.train import Trainer
from dcgan_dist.world import World

FILTERS_64 = "z100 k4 g 512@4 256@8 128@16 64@32 3@64 d 64@32 128@16 256@8 512@4"
NAMES = {FILTERS_64: "64_filters"}
USUAL_IMAGES = 128
SWITCHES = {
    "float32": Switches(),
    "bfloat16": Switches(autocast=torch.bfloat16),
    "channels_last": Switches(channels_last=True),
    "fused_adam": Switches(fused_adam=True),
    "frozen_d": Switches(frozen_d=True),
    "one_backward": Switches(one_backward=True),
    "keep_memory": Switches(keep_memory=True),
}
"""The plain loop, and with each switch alone."""


def make_ours(net: str, device: torch.device, images: int, precision: str, steps: int) -> Callable[[], int]:
    config = Config(
        data=Data(batch_images=images),
        model=Model(net=net),
        train=Train(update_rule="both", precision=precision),  # type: ignore[arg-type]
    )
    trainer = Trainer(config, World(rank=0, ranks=1, device=device, group=None))
    size = parse_net(net).image_size
    # Channels last, as they come from `pictures.to_device`.
    real = (torch.rand(images, size, size, 3, device=device) * 2 - 1).permute(0, 3, 1, 2)
    state = {"step": 0}

    def run() -> int:
        for _ in range(steps):
            trainer.update(state["step"], real)
            state["step"] += 1
        _wait(device)
        return steps * images

    return run


def make_plain(
    net: str, device: torch.device, images: int, switches: Switches, steps: int
) -> Callable[[], int]:
    loop = PlainLoop(parse_net(net), device, switches)
    size = parse_net(net).image_size
    real = torch.rand(images, 3, size, size, device=device) * 2 - 1
    if switches.channels_last:
        real = real.to(memory_format=torch.channels_last)

    def run() -> int:
        for _ in range(steps):
            loop.step(real)
        _wait(device)
        return steps * images

    return run


def _product(device: torch.device, precision: torch.dtype, repeats: int) -> Callable[[], int]:
    """Square matrix products as large as the networks' largest; its items are operations."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.rand(side, side, device=device, dtype=precision) for _ in range(2))

    def run() -> int:
        for _ in range(repeats):
            a @ b
        _wait(device)
        return repeats * 2 * side**3

    return run


def operations(net: str, images: int) -> int:
    """Floating-point operations that one step needs, multiplications and additions of matrices only.

    Those by zeros that our last layer adds are left out.
    """
    step = make_ours(net, torch.device("cpu"), images, "float32", 1)
    plainly = patch.object(convolution, "_has_few_maps", return_value=False)
    with plainly, FlopCounterMode(display=False) as counted:
        step()
    return counted.get_total_flops()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch-images", type=int, nargs="+", default=[USUAL_IMAGES])
    parser.add_argument("--net", default=FILTERS_64)
    parser.add_argument("--steps", type=int, help="steps a turn (default: 1 on a CPU, 50 on a GPU)")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    device = torch.device(args.device)
    steps = args.steps or (50 if device.type == "cuda" else 1)
    for images in args.batch_images:
        config = {"net": args.net, "batch_images": images, "steps": steps}
        common = (args.net, device, images)
        with ExitStack() as stack:
            contenders = {
                f"ours_{precision}": stack.enter_context(apart(make_ours, *common, precision, steps))
                for precision in ("float32", "bfloat16")
            }
            contenders |= {
                f"plain_{name}": stack.enter_context(apart(make_plain, *common, switches, steps))
                for name, switches in SWITCHES.items()
            }
            contenders["matrix_products"] = stack.enter_context(
                apart(_product, device, torch.bfloat16, 10 * steps)
            )
            rates = interleaved(contenders, repeats=args.repeats)
        usual = args.net == FILTERS_64 and images == USUAL_IMAGES
        prefix = f"step/{device.type}" + ("" if usual else f"/{NAMES.get(args.net, args.net)}/{images}")
        products = rates.pop("matrix_products")
        record("step", f"{prefix}/matmul_flops", products, unit="FLOP/s", config=config)
        for name, values in rates.items():
            record("step", f"{prefix}/{name}", values, unit="images/s", config=config)
        plain, ours = rates["plain_float32"], rates["ours_bfloat16"]
        pairs = {
            "ratio_to_plain": ratios(ours, plain),
            "fp32_ratio_to_plain": ratios(rates["ours_float32"], plain),
            "ratio_to_plain_bfloat16": ratios(ours, rates["plain_bfloat16"]),
        }
        pairs |= {
            f"alone/{name}": ratios(rates[f"plain_{name}"], plain) for name in SWITCHES if name != "float32"
        }
        per_image = operations(args.net, images) / images
        pairs["share_of_matmul_rate"] = ratios([rate * per_image for rate in ours], products)
        for name, values in pairs.items():
            record("step", f"{prefix}/{name}", values, unit="ratio", config=config)


if __name__ == "__main__":
    main()
