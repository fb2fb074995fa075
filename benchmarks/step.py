"""Images per second of one training step, data already on the device: ours against the plain loop, the plain
loop with each of our switches alone, and the machine's rate of matrix products.

The networks are the same (64 filters, 4x4 kernels, 64x64 pictures), both update D and G on every minibatch.
Every contender has a process of its own. On a CPU they take turns; a card holds one of them at a time.
A step's operations are counted, not estimated.
Ours is compared in the precision that `train.precision: auto` chooses on the machine, and its rate with that
of matrix products in the same precision. bfloat16 is left out where a CPU emulates it.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import PlainLoop, Switches
from benchmarks.record import apart, capability, interleaved, ratios, record
from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.gan.description import parse_net
from dcgan_dist.ranks.determinism import prepare
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


def make_ours(
    net: str, device: torch.device, images: int, precision: str, steps: int, how: str = ""
) -> Callable[[], int]:
    """Ours, `how` being "compiled", by "graphs", or as it is."""
    config = Config(
        data=Data(batch_images=images),
        model=Model(net=net),
        train=Train(
            update_rule="both",
            precision=precision,  # type: ignore[arg-type]
            compile=how == "compiled",
            graphs=how == "graphs",
        ),
    )
    prepare("error", allow_tf32=False)
    trainer = Trainer(config, World(rank=0, ranks=1, device=device, group=None))
    size = parse_net(net).image_size
    # Channels last, as they come from `pictures.to_device`.
    real = (torch.rand(images, size, size, 3, device=device) * 2 - 1).permute(0, 3, 1, 2)
    # Graphs are fed from the host, as in training.
    pixels = np.random.default_rng(0).integers(0, 256, (images, size, size, 3), np.uint8)
    state = {"step": 0}

    def run() -> int:
        for _ in range(steps):
            if how == "graphs":
                trainer.step(state["step"], pixels)
            else:
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


def operations(net: str, images: int = 8) -> float:
    """Floating-point operations for each image of a step, multiplications and additions of matrices only."""
    step = make_ours(net, torch.device("cpu"), images, "float32", 1)
    with FlopCounterMode(display=False) as counted:
        step()
    return counted.get_total_flops() / images


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch-images", type=int, nargs="+", default=[USUAL_IMAGES])
    parser.add_argument("--net", default=FILTERS_64)
    parser.add_argument(
        "--steps", type=int, help="steps a turn (default: 1 on a CPU; about 6,400 images' on a GPU)"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--contenders", nargs="+", help="only these, as ours_bfloat16 (default: all)")
    args = parser.parse_args()
    device = torch.device(args.device)
    for images in args.batch_images:
        steps = args.steps or (max(5, 6400 // images) if device.type == "cuda" else 1)
        measure(args.net, device, images, steps=steps, repeats=args.repeats, only=args.contenders)


Made = AbstractContextManager[Callable[[], int]]


def contenders(net: str, device: torch.device, images: int, steps: int) -> dict[str, Made]:
    """Each in a process of its own that begins where its block does."""
    units = device.type == "cuda" or "bf16" in capability()
    common = (net, device, images)
    found: dict[str, Made] = {}
    for precision in ("float32", "bfloat16")[: 1 + units]:
        found[f"ours_{precision}"] = apart(make_ours, *common, precision, steps)
        for how in ("compiled", "graphs") if device.type == "cuda" else ():
            found[f"ours_{precision}_{how}"] = apart(make_ours, *common, precision, steps, how)
    for name, switch in SWITCHES.items():
        if units or name != "bfloat16":
            found[f"plain_{name}"] = apart(make_plain, *common, switch, steps)
    product = getattr(torch, choose(device)[0])
    return found | {"matrix_products": apart(_product, device, product, 10 * steps)}


def rates_of(found: dict[str, Made], device: torch.device, *, repeats: int) -> dict[str, list[float]]:
    """Images (operations) per second of every contender in every round."""
    if device.type == "cuda":
        rates: dict[str, list[float]] = {}
        for name, made in found.items():
            with made as run:
                try:
                    rates |= interleaved({name: run}, repeats=repeats)
                except EOFError:  # its own process has told why
                    print(f"{name} failed and has no line", file=sys.stderr, flush=True)
        return rates
    with ExitStack() as stack:
        runs = {name: stack.enter_context(made) for name, made in found.items()}
        return interleaved(runs, repeats=repeats)


def measure(
    net: str,
    device: torch.device,
    images: int,
    *,
    steps: int,
    repeats: int,
    only: Sequence[str] | None = None,
) -> None:
    """All contenders (or `only` some) on one net and batch, and their lines."""
    precision = choose(device)[0]
    found = contenders(net, device, images, steps)
    if only:
        found = {name: made for name, made in found.items() if name in {*only, "matrix_products"}}
    rates = rates_of(found, device, repeats=repeats)
    usual = net == FILTERS_64 and images == USUAL_IMAGES
    kind = "avx2" if device.type == "cpu" and capability() == "AVX2" else device.type
    prefix = f"step/{kind}" + ("" if usual else f"/{NAMES.get(net, net)}/{images}")
    config = {"net": net, "batch_images": images, "steps": steps, "precision": precision}
    products = rates.pop("matrix_products")
    record("step", f"{prefix}/matmul_flops", products, unit="FLOP/s", config=config)
    for name, values in rates.items():
        record("step", f"{prefix}/{name}", values, unit="images/s", config=config)
    for name, values in compared(rates, precision).items():
        record("step", f"{prefix}/{name}", values, unit="ratio", config=config)
    for name, how in (("share_of_matmul_rate", ""), ("graphs_share_of_matmul_rate", "_graphs")):
        if ours := rates.get(f"ours_{precision}{how}"):
            needed = operations(net)
            share = ratios([rate * needed for rate in ours], products)
            record("step", f"{prefix}/{name}", share, unit="ratio", config=config)


def compared(rates: dict[str, list[float]], precision: str) -> dict[str, list[float]]:
    """Ratios of those that were measured, round by round."""
    pairs = {
        "ratio_to_plain": (f"ours_{precision}", "plain_float32"),
        "fp32_ratio_to_plain": ("ours_float32", "plain_float32"),
        "ratio_to_plain_bfloat16": ("ours_bfloat16", "plain_bfloat16"),
        "compiled_ratio_to_plain": (f"ours_{precision}_compiled", "plain_float32"),
        "graphs_ratio_to_plain": (f"ours_{precision}_graphs", "plain_float32"),
        "graphs_ratio_to_plain_bfloat16": ("ours_bfloat16_graphs", "plain_bfloat16"),
    }
    pairs |= {f"alone/{name}": (f"plain_{name}", "plain_float32") for name in SWITCHES if name != "float32"}
    return {
        name: ratios(rates[ours], rates[theirs])
        for name, (ours, theirs) in pairs.items()
        if {ours, theirs} <= rates.keys()
    }


if __name__ == "__main__":
    main()
