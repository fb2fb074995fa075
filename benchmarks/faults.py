"""Faults between the feed and a real object store: what was served wrong, lost, or hung.

A server of its own, a proxy that breaks requests at random, and feeds of two ranks that read through it epoch
after epoch until enough faults have struck. Every picture served is held against the one that belongs there.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.record import record
from dcgan_dist.stream.feed import Feed
from dcgan_dist.stream.plan import Plan, lanes
from shards import ShardsError
from shards.dataset.copy import copy
from shards.dataset.index import load
from shards.dataset.reader import Blocks
from shards.storage import store
from shards.storage.retries import Limits
from tests.cluster.faultproxy import FaultProxy, Rule
from tests.cluster.objectstore import object_store
from tests.numbered import build_numbers, numbers

BATCH, RANKS = 32, 2
KINDS = ("refuse", "reset", "truncate", "short", "corrupt", "stall", "stall_head")
STATUSES = (403, 429, 500, 503)


def rules(share: float) -> list[Rule]:
    """Every kind of fault, alike often, that together strike `share` of all reads; and some delays."""
    chance = share / (len(KINDS) + len(STATUSES))
    bodies = [
        Rule(kind, method="GET", chance=chance, at=number / len(KINDS), seconds=5)
        for number, kind in enumerate(KINDS)
    ]
    answers = [Rule("status", method="GET", status=status, chance=chance) for status in STATUSES]
    return [*bodies, *answers, Rule("latency", chance=0.05, seconds=0.05)]


def count_faults(proxy: FaultProxy) -> int:
    """Faults so far; delays are none."""
    return sum(number for kind, number in proxy.faults.items() if kind not in ("latency", "rate"))


def expected(plan: Plan, epoch: int) -> np.ndarray:
    """(steps, lanes): the number of the picture that belongs there, from the plan alone."""
    starts = np.concatenate(([0], np.cumsum(plan.counts)))
    table = np.full((plan.steps_per_epoch, plan.batch_images), -1)
    for span in plan.epoch(epoch).spans(range(plan.batch_images), first_step=0):
        table[span.first : span.stop, span.lane] = starts[span.block] + span.samples
    return table


def serve_epochs(url: str, proxy: FaultProxy, *, faults: int, wait_seconds: float = 120.0) -> Counter[str]:
    """Read epochs until so many faults have struck; counts of right, wrong, lost pictures and of hangs."""
    blocks = Blocks(url, load(url))
    plan = Plan(blocks.kept_counts, batch_images=BATCH, seed=5)
    found: Counter[str] = Counter()
    epoch = 0
    while count_faults(proxy) < faults:
        whole, first = expected(plan, epoch), epoch * plan.steps_per_epoch
        for rank in range(RANKS):
            rows = lanes(rank, RANKS, BATCH)
            stop = first + plan.steps_per_epoch
            # Little is read ahead, so that there are many requests.
            feed = Feed(blocks, plan, lanes=rows, first_step=first, stop_step=stop, prefetch_bytes=2**18)
            with feed:
                for step in range(plan.steps_per_epoch):
                    began = time.monotonic()
                    try:
                        served = numbers(feed.next_batch())
                    except ShardsError as error:
                        print(f"lost: {error}", file=sys.stderr)
                        found["lost"] += len(rows) * (plan.steps_per_epoch - step)
                        break
                    right = served == whole[step, rows.start : rows.stop]
                    found["right"] += int(right.sum())
                    found["wrong"] += int((~right).sum())
                    found["hangs"] += time.monotonic() - began > wait_seconds
            found["hedges"] += feed.fetch.hedges
            found["replaced"] += feed.replaced
        epoch += 1
    found["epochs"] = epoch
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=5000)
    parser.add_argument("--share", type=float, default=0.5, help="of the reads that are struck")
    args = parser.parse_args()
    # With half of all reads struck, five tries would fail one block in thirty.
    store.LIMITS = Limits(tries=30, first_wait_seconds=0.01, longest_wait_seconds=0.5, read_seconds=0.5)
    with (
        object_store() as server,
        FaultProxy(server.endpoint) as proxy,
        tempfile.TemporaryDirectory() as folder,
    ):
        os.environ.update(server.through(proxy.endpoint).environment)
        url = store.join(server.url, "faults")
        copy(build_numbers(Path(folder) / "set", 6000, shard=1500, block=10), url)
        proxy.rules(*rules(args.share), seed=1)
        before, began = store.counters.snapshot(), time.monotonic()
        found = serve_epochs(url, proxy, faults=args.faults)
        seconds, asked = time.monotonic() - began, store.counters.snapshot() - before
        kinds, injected = dict(proxy.faults), count_faults(proxy)
    config = {
        "server": server.kind,
        "share": args.share,
        "kinds": kinds,
        "served": found["right"],
        "lost": found["lost"],
        "hangs": found["hangs"],
        "replaced": found["replaced"],
        "hedges": found["hedges"],
        "requests": asked.requests,
        "retries": asked.retries,
        "seconds": round(seconds),
    }
    record("faults", "faults/injected", [injected], unit="faults", config=config)
    record("faults", "faults/wrong_samples", [found["wrong"]], unit="samples", config=config)


if __name__ == "__main__":
    main()
