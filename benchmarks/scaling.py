"""Two ranks on two cores against one rank on one core, and the collectives of a step, counted.

The global batch grows with the ranks, as it does on a cluster: 128 images a rank, the paper's batch, and
64. What is lost is mostly latency, the same for any number of images.
"""

import argparse
from contextlib import ExitStack

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.ranks import Run, together
from benchmarks.record import interleaved, ratios, record
from benchmarks.step import FILTERS_64
from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.gan.batchnorm import BatchNorm
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import Discriminator, Generator
from dcgan_dist.ranks.world import World
from dcgan_dist.training.trainer import Trainer

COLLECTIVES = ("c10d::allreduce_", "c10d::allgather_", "c10d::_allgather_base_")


def make_trainer(here: World, net: str, rule: str, images: int) -> tuple[Trainer, torch.Tensor]:
    """A trainer of `images` on each rank, and a batch for it."""
    config = Config(
        data=Data(batch_images=images * here.ranks),
        model=Model(net=net),
        train=Train(update_rule=rule, precision="bfloat16"),  # type: ignore[arg-type]
    )
    size = parse_net(net).image_size
    real = (torch.rand(images, size, size, 3) * 2 - 1).permute(0, 3, 1, 2)
    return Trainer(config, here), real


def stepping(here: World, net: str, steps: int, images: int) -> Run:
    """Images of all ranks in `steps` steps."""
    trainer, real = make_trainer(here, net, "both", images)
    done = [0]

    def run() -> int:
        for _ in range(steps):
            trainer.update(done[0], real)
            done[0] += 1
        return steps * images * here.ranks

    return run


def counting(here: World, net: str, rule: str) -> Run:
    """The collectives of two steps, one for each network under `alternate`."""
    trainer, real = make_trainer(here, net, rule, 4)
    for step in range(2):  # the first builds DDP's buckets anew
        trainer.update(step, real)

    def run() -> int:
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            for step in range(2, 4):
                trainer.update(step, real)
        return sum(event.name in COLLECTIVES for event in seen.events() or ())

    return run


def least(net: str, rule: str) -> int:
    """Collectives of two steps that the mathematics needs: the statistics of each batch norm, there and back,
    each time it runs (none can wait for the next layer; D's of real and fake go together), and one sum of
    gradients per network."""
    with torch.device("meta"):
        networks = Generator(parse_net(net), norm_eps=1e-8), Discriminator(parse_net(net), norm_eps=1e-8)
    g, d = (sum(isinstance(module, BatchNorm) for module in network.modules()) for network in networks)
    # G's update: both networks, there and back. D's: G there; D there and back.
    g_update, d_update = 2 * g + 2 * d + 1, g + 2 * d + 1
    return g_update + d_update if rule == "alternate" else 2 * (g_update + d_update - g)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default=FILTERS_64)
    parser.add_argument("--steps", type=int, default=2, help="steps a turn")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    for images in (128, 64):
        config = {"net": args.net, "images_per_rank": images, "precision": "bfloat16"}
        made = (stepping, args.net, args.steps, images)
        with ExitStack() as stack:
            pair = stack.enter_context(together(2, *made, cores=[[0], [1]]))
            one = stack.enter_context(together(1, *made, cores=[[0]]))
            rates = interleaved({"1_rank": one, "2_ranks": pair}, repeats=args.repeats)
        mark = "" if images == 128 else f"/{images}_images"
        for name, values in rates.items():
            record("scaling", f"scaling/{name}{mark}", values, unit="images/s", config=config)
        gain = ratios(rates["2_ranks"], rates["1_rank"])
        record("scaling", f"scaling/two_ranks_over_one{mark}", gain, unit="ratio", config=config)
    for rule in ("alternate", "both"):
        with together(2, counting, args.net, rule) as count:
            found = count() / 2
        config = {"net": args.net, "update_rule": rule, "least": least(args.net, rule) / 2}
        name = "collectives_per_step" if rule == "alternate" else "collectives_per_step_both"
        record("scaling", f"scaling/{name}", [found], unit="collectives", config=config)


if __name__ == "__main__":
    main()
