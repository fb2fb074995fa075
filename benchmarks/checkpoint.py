"""What a checkpoint costs the training loop, in steps: the copy and the comparison of ranks, not the writing.

At the paper's network, without data: a step is one update of both networks on pictures that are there.
"""

import argparse
import tempfile
import time

import torch

from benchmarks.record import record
from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.writer import Writer
from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.gan.description import parse_net
from dcgan_dist.ranks.devices import choose_device
from dcgan_dist.ranks.world import World
from dcgan_dist.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="dcgan64")
    parser.add_argument("--batch-images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    config = Config(
        data=Data(batch_images=args.batch_images),
        model=Model(net=args.net),
        train=Train(update_rule="both", ema_decay=0.99, precision="float32"),
    )
    device = choose_device(args.device)
    trainer = Trainer(config, World(rank=0, ranks=1, device=device, group=None))
    size = parse_net(args.net).image_size
    real = (torch.rand(args.batch_images, size, size, 3, device=device) * 2 - 1).permute(0, 3, 1, 2)
    trainer.update(0, real)
    steps, stalls = [], []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(1, args.repeats + 1):
            began = time.perf_counter()
            trainer.update(step, real)
            _wait(device)
            steps.append(time.perf_counter() - began)
            saving = Writer()
            began = time.perf_counter()
            trainer.check_weights(step)
            state, facts = trainer.state(step)
            saving.save(step, lambda s=step, c=state, f=facts: checkpoint.write(folder, s, c.parts(), f))  # type: ignore[misc]
            stalls.append(time.perf_counter() - began)
            saving.close()
    settings = {"net": args.net, "batch_images": args.batch_images, "device": args.device}
    megabytes = sum(t.nbytes for tensors in state.parts().values() for t in tensors.values()) / 2**20
    settings["checkpoint_mib"] = round(megabytes)
    record("checkpoint", "checkpoint/stall_seconds", stalls, unit="s", config=settings)
    shares = [stall / step for stall, step in zip(stalls, steps, strict=True)]
    record("checkpoint", "checkpoint/stall_steps", shares, unit="steps", config=settings)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
