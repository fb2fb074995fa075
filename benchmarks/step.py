"""Images per second of one training step, data already on the device: ours against the plain loop, the plain
loop with each of our switches alone, and the machine's rate of matrix products.

The networks are the same (64 filters, 4x4 kernels, 64x64 pictures), both update D and G on every minibatch.
Every contender has a process of its own, and they take turns. A step's operations are counted, not estimated.
Ours is compared in the precision that `train.precision: auto` chooses on the machine, and its rate with that
of matrix products in the same precision. bfloat16 is left out where a CPU emulates it.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import PlainLoop, Switches
from benchmarks.record import apart, capability, interleaved, ratios, record
from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.gan.description import parse_net
from dcgan_dist.ranks.world import World
from dcgan_dist.training.precision import choose
from dcgan_dist.training.trainer import Trainer

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
    """Floating-point operations that one step needs, multiplications and additions of matrices only."""
    step = make_ours(net, torch.device("cpu"), images, "float32", 1)
    with FlopCounterMode(display=False) as counted:
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
        measure(args.net, device, images, steps=steps, repeats=args.repeats)


def measure(net: str, device: torch.device, images: int, *, steps: int, repeats: int) -> None:
    """All contenders on one net and batch, and their lines."""
    precision = choose(device)[0]
    units = device.type == "cuda" or "bf16" in capability()
    kinds = ["float32", *["bfloat16"] * units]
    switches = {name: switch for name, switch in SWITCHES.items() if units or name != "bfloat16"}
    common = (net, device, images)
    with ExitStack() as stack:
        contenders = {
            f"ours_{kind}": stack.enter_context(apart(make_ours, *common, kind, steps)) for kind in kinds
        }
        contenders |= {
            f"plain_{name}": stack.enter_context(apart(make_plain, *common, switch, steps))
            for name, switch in switches.items()
        }
        product = apart(_product, device, getattr(torch, precision), 10 * steps)
        contenders["matrix_products"] = stack.enter_context(product)
        rates = interleaved(contenders, repeats=repeats)
    usual = net == FILTERS_64 and images == USUAL_IMAGES
    kind = "avx2" if device.type == "cpu" and capability() == "AVX2" else device.type
    prefix = f"step/{kind}" + ("" if usual else f"/{NAMES.get(net, net)}/{images}")
    config = {"net": net, "batch_images": images, "steps": steps, "precision": precision}
    products = rates.pop("matrix_products")
    record("step", f"{prefix}/matmul_flops", products, unit="FLOP/s", config=config)
    for name, values in rates.items():
        record("step", f"{prefix}/{name}", values, unit="images/s", config=config)
    plain, ours = rates["plain_float32"], rates[f"ours_{precision}"]
    pairs = {
        "ratio_to_plain": ratios(ours, plain),
        "fp32_ratio_to_plain": ratios(rates["ours_float32"], plain),
    }
    if units:
        pairs["ratio_to_plain_bfloat16"] = ratios(rates["ours_bfloat16"], rates["plain_bfloat16"])
    pairs |= {
        f"alone/{name}": ratios(rates[f"plain_{name}"], plain) for name in switches if name != "float32"
    }
    per_image = operations(net, images) / images
    pairs["share_of_matmul_rate"] = ratios([rate * per_image for rate in ours], products)
    for name, values in pairs.items():
        record("step", f"{prefix}/{name}", values, unit="ratio", config=config)


if __name__ == "__main__":
    main()
