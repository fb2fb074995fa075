"""One training on four Slurm nodes, interrupted again and again: does it end where the unbroken one does?

`python -m benchmarks.slurm --interruptions 20` starts the test cluster, draws the dataset and takes about
10 minutes. Interruptions come in turn: a signal, a requeue, a preemption, a crashed node.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

from benchmarks.record import record
from shards.building.build import build
from shards.sources.drawn.rooms import Rooms
from tests.cluster import jobs
from tests.cluster.slurm import slurm_cluster


def main() -> int:
    """Record how many interruptions there were, and the share after which the run went on as if unbroken."""
    parser = argparse.ArgumentParser("python -m benchmarks.slurm")
    parser.add_argument("--interruptions", type=int, default=20)
    asked = parser.parse_args().interruptions
    kinds = itertools.cycle([jobs.signal_it, jobs.requeue_it, jobs.preempt_it, jobs.crash_a_node])
    with tempfile.TemporaryDirectory() as name, slurm_cluster() as cluster:
        data = str(Path(name) / "rooms")
        build(Rooms(600, size=16), data, size=16, shard_images=250, workers=1)
        training = jobs.start(cluster, data, Path(name))
        resumed = 0
        for number, interrupt in zip(range(1, asked + 1), kinds, strict=False):
            began = time.monotonic()
            training.wait_for_steps(5)
            interrupt(training, last=number == asked)
            saved = training.saved
            if number < asked:
                cluster.start_now(training.job)
                training.wait_for_steps(1)
            else:
                training.finish()
            steps = training.steps
            went_on = training.restarts == number and steps == list(range(1, len(steps) + 1))
            resumed += went_on
            told = f"{number}: {interrupt.__name__} at step {saved}, {time.monotonic() - began:.0f} s"
            print(told + ("" if went_on else ", NOT RESUMED"), flush=True)
        differ = training.differences()
        config = {
            "nodes": jobs.NODES,
            "net": "tiny16",
            "steps": training.saved,
            "differing_weights": len(differ),
        }
        record("slurm", "slurm/interruptions", [asked], unit="interruptions", config=config)
        record("slurm", "slurm/resumed_share", [resumed / asked], unit="share", config=config)
    return 1 if differ or resumed < asked else 0


if __name__ == "__main__":
    raise SystemExit(main())
