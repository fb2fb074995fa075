"""Images per second of one training step, data already on the device: ours against the plain loop.

The networks are the same (64 filters, 4x4 kernels, 64x64 pictures), both update D and G on every minibatch.
Every contender has a process of its own, and they take turns.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack

import torch

from benchmarks.plain import PlainLoop
from benchmarks.record import apart, interleaved, ratios, record
from dcgan_dist.config import Config, Data, Model, Train
from dcgan_dist.nets import parse_net
from dcgan_dist.train import Trainer
from dcgan_dist.world import World

FILTERS_64 = "z100 k4 g 512@4 256@8 128@16 64@32 3@64 d 64@32 128@16 256@8 512@4"


def _ours(net: str, device: torch.device, images: int, precision: str, steps: int) -> Callable[[], int]:
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


def _plain(net: str, device: torch.device, images: int, precision: str, steps: int) -> Callable[[], int]:
    loop = PlainLoop(parse_net(net), device, autocast=torch.bfloat16 if precision == "bfloat16" else None)
    size = parse_net(net).image_size
    real = torch.rand(images, 3, size, size, device=device) * 2 - 1

    def run() -> int:
        for _ in range(steps):
            loop.step(real)
        _wait(device)
        return steps * images

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch-images", type=int, nargs="+", default=[128])
    parser.add_argument("--net", default=FILTERS_64)
    parser.add_argument("--steps", type=int, help="steps a turn (default: 1 on a CPU, 50 on a GPU)")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    device = torch.device(args.device)
    steps = args.steps or (50 if device.type == "cuda" else 1)
    for images in args.batch_images:
        config = {"net": args.net, "batch_images": images, "steps": steps}
        makers = {"plain": _plain, "ours": _ours}
        with ExitStack() as stack:
            contenders = {
                f"{who}_{precision}": stack.enter_context(
                    apart(make, args.net, device, images, precision, steps)
                )
                for who, make in makers.items()
                for precision in ("float32", "bfloat16")
            }
            rates = interleaved(contenders, repeats=args.repeats)
        prefix = f"step/{device.type}"
        for name, values in rates.items():
            record("step", f"{prefix}/{name}", values, unit="images/s", config=config)
        plain = rates["plain_float32"]
        pairs = {
            "ratio_to_plain": ratios(rates["ours_bfloat16"], plain),
            "fp32_ratio_to_plain": ratios(rates["ours_float32"], plain),
            "ratio_to_plain_bfloat16": ratios(rates["ours_bfloat16"], rates["plain_bfloat16"]),
        }
        for name, values in pairs.items():
            record("step", f"{prefix}/{name}", values, unit="ratio", config=config)


if __name__ == "__main__":
    main()
