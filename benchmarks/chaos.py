"""How many kills a run survives, and how often its end is that of the unbroken run: `dcgan_dist.chaos`."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.record import record
from dcgan_dist.chaos.kill import Chaos, table
from shards.building.build import build
from shards.sources.drawn.rooms import Rooms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[2], help="several: every life on one of them"
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--torchrun", action="store_true", help="torchrun starts killed ranks again")
    parser.add_argument("--stop", action="store_true", help="SIGSTOP instead of SIGKILL")
    args = parser.parse_args()
    exact = len(args.ranks) == 1
    settings = {
        "data.batch_images": 16,
        "model.net": "tiny16",
        "train.steps": args.steps,
        "train.ema_decay": 0.9,
        "train.precision": "float32" if exact else "float64",
        "train.device": "cpu",
        "run.log_steps": 5,
        "run.sample_images": 4,
        "run.checkpoint_steps": 15,
    }
    with tempfile.TemporaryDirectory() as folder:
        rooms = f"{folder}/rooms"
        build(Rooms(600, size=16), rooms, size=16, shard_images=250, workers=1)
        words = [f"--data.url={rooms}", *(f"--{name}={value}" for name, value in settings.items())]
        chaos = Chaos(words, Path(folder) / "runs", ranks=args.ranks, seed=0, stop=args.stop)
        chaos.unbroken()
        (chaos.restarts if args.torchrun else chaos.rounds)(args.kills)
    print(table(chaos.score))
    config = settings | {"ranks": args.ranks, "runs": chaos.score.rounds}
    suffix = "_stopping" if args.stop else "" if exact else "_changing_ranks"
    score = chaos.score
    if args.torchrun:
        share = score.equal_rounds / score.rounds
        config |= {"kills": score.kills.total()}
        record("chaos", "chaos/torchrun_restarts_bit_equal_share", [share], unit="share", config=config)
        return
    record("chaos", f"chaos/kills{suffix}", [score.kills.total()], unit="kills", config=config)
    share = score.equal_rounds / score.rounds
    record(
        "chaos",
        f"chaos/{'bit_equal' if exact else 'equal'}_share{suffix}",
        [share],
        unit="share",
        config=config,
    )
    record(
        "chaos", f"chaos/leave_seconds_max{suffix}", [score.slowest_leave_seconds], unit="s", config=config
    )


if __name__ == "__main__":
    main()
