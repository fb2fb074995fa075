"""Training fed from an object store against the same step on a batch that is already there, on two ranks.

The store (Ceph's gateway) runs on the same cores as the training, which a cluster's does not: what it takes
for itself counts against us.
"""

import argparse
import os
import tempfile
from contextlib import ExitStack

from benchmarks.ranks import Run, together
from benchmarks.record import interleaved, ratios, record
from benchmarks.step import FILTERS_64
from dcgan_dist import pictures
from dcgan_dist.config.settings import Config, Data, Model, Train
from dcgan_dist.config.settings import Run as RunSettings
from dcgan_dist.gan.description import parse_net
from dcgan_dist.ranks.world import World
from dcgan_dist.stream.feed import open_feed
from dcgan_dist.stream.plan import Plan
from dcgan_dist.training.trainer import Trainer
from shards.building.build import build
from shards.dataset.copy import copy
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.sources.drawn.rooms import Rooms
from shards.storage import store
from tests.cluster.objectstore import object_store

IMAGES, BATCH = 8000, 128


def training(here: World, url: str, net: str, steps: int, fed: bool) -> Run:
    """Images of all ranks in `steps` steps, from `url` or from a batch that is there."""
    config = Config(
        data=Data(url=url, batch_images=BATCH),
        model=Model(net=net),
        train=Train(update_rule="both", precision="bfloat16"),
        run=RunSettings(),
    )
    trainer = Trainer(config, here)
    blocks = Blocks(url, load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=0)
    feed = open_feed(config, blocks, plan, lanes=trainer.rows, first_step=0, stop_step=10**9).__enter__()
    there = feed.next_batch().copy()
    done = [0]

    def run() -> int:
        for _ in range(steps):
            batch = feed.next_batch() if fed else there
            trainer.update(done[0], pictures.to_device(batch, here.device, trainer.dtype))
            done[0] += 1
        return steps * BATCH

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default=FILTERS_64)
    parser.add_argument("--encoding", default="jpg")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    size = parse_net(args.net).image_size
    with ExitStack() as stack:
        server = stack.enter_context(object_store())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ.update(server.environment)
        url = store.join(server.url, "rooms")
        build(Rooms(IMAGES, size=size), folder, size=size, encoding=args.encoding)
        copy(folder, url)
        contenders = {
            name: stack.enter_context(together(2, training, url, args.net, args.steps, fed))
            for name, fed in (("step_only", False), ("fed", True))
        }
        rates = interleaved(contenders, repeats=args.repeats)
        config = {"net": args.net, "batch_images": BATCH, "encoding": args.encoding, "server": server.kind}
    for name, values in rates.items():
        record("end_to_end", f"end_to_end/{name}", values, unit="images/s", config=config)
    share = ratios(rates["fed"], rates["step_only"])
    record("end_to_end", "end_to_end/share_of_step_only", share, unit="ratio", config=config)


if __name__ == "__main__":
    main()
