"""The public reader, `dcgan_dist.data.ExactOrder`, beside our feed, webdataset and the bare decoder:
pictures per second of drawn rooms, 64x64 JPEG, warm page cache, batches of 128, on two cores.

The public reader gives pictures, keys and labels of each batch; the feed and webdataset give pictures alone.
webdataset reads its own writer's tars. Each contender is taken at its better number of threads or workers.
"""

import argparse
import tempfile
from contextlib import ExitStack

from torch.utils.data import DataLoader

from benchmarks.feed import (
    BATCH,
    Contender,
    Run,
    best,
    decoder_alone,
    from_webdataset,
    ours,
    write_for_webdataset,
)
from benchmarks.ranks import together
from benchmarks.record import apart, interleaved, ratios, record
from dcgan_dist.data import ExactOrder
from dcgan_dist.ranks.world import World
from shards.building.build import build
from shards.sources.drawn.rooms import Rooms


def public(here: World, url: str, threads: int, workers: int) -> Run:
    def run() -> int:
        order = ExactOrder(url, BATCH * here.ranks, 0, rank=here.rank, ranks=here.ranks, threads=threads)
        order.steps = order.steps_per_epoch
        batches = DataLoader(order, batch_size=None, num_workers=workers) if workers else order
        return sum(
            len(batch.pictures) * here.ranks for batch in batches if len(batch.labels) == len(batch.keys)
        )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = f"{folder}/jpg"
        build(Rooms(args.images, size=64), url, size=64, encoding="jpg")
        own = write_for_webdataset(url, "jpg", f"{folder}/webdataset")
        contenders: dict[str, Contender] = {f"feed_{n}": together(1, ours, url, n, 1) for n in (1, 2)}
        contenders |= {f"public_{n}": together(1, public, url, n, 0) for n in (1, 2)}
        contenders["public_workers"] = together(1, public, url, 1, 2)
        contenders |= {f"webdataset_{n}": apart(from_webdataset, own, "jpg", n) for n in (0, 2)}
        contenders["feed_on_2_ranks"] = together(2, ours, url, 1, 1)
        contenders["decoder_alone"] = together(2, decoder_alone, url)
        rates = interleaved(
            {name: stack.enter_context(one) for name, one in contenders.items()}, repeats=args.repeats
        )
    config = {"images": args.images, "size": 64, "batch_images": BATCH}
    feed, alone, theirs = (
        best([values for name, values in rates.items() if name in names])
        for names in ({"feed_1", "feed_2"}, {"public_1", "public_2"}, {"webdataset_0", "webdataset_2"})
    )
    mine = best([alone, rates["public_workers"]])
    record("feed", "reader/jpg/images_per_second", mine, unit="images/s", config=config)
    record("feed", "reader/jpg/ratio_to_feed", ratios(alone, feed), unit="ratio", config=config)
    record("feed", "reader/jpg/ratio_to_webdataset", ratios(mine, theirs), unit="ratio", config=config)
    share = ratios(rates["feed_on_2_ranks"], rates["decoder_alone"])
    record("feed", "feed/jpg/two_ranks_share_of_decoder_alone", share, unit="ratio", config=config)


if __name__ == "__main__":
    main()
