"""Kill training again and again, and compare where it ends with an unbroken run.

    python -m dcgan_dist.chaos --config configs/demo.yaml --kills 50 --ranks 2

Every life is killed by SIGKILL, one rank or all, at a random moment: while starting, training or writing a
checkpoint. On as many ranks the end must be equal bit for bit; with --change-ranks, where every life has
another number of ranks, to rounding, and training is in float64. With --stop one rank is stopped (SIGSTOP)
instead, and killed when the others have left. Kept out: faults of storage, which `shards` bears.
"""

import argparse
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dcgan_dist.chaos import stops
from dcgan_dist.chaos.ends import differences
from dcgan_dist.chaos.local_ranks import LocalRanks, warm_up
from dcgan_dist.chaos.torchrun import Torchrun
from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.rules import check, check_data, total_steps
from dcgan_dist.config.settings import Config, read_config
from shards.command import command
from shards.errors import ToldError
from shards.storage import store
from shards.storage.paths import argument

LEAVE_SECONDS = 15.0
"""How long ranks may take to leave after another was killed, and then after SIGTERM, which a launcher sends:
ranks that have not met yet wait for those that are gone."""
LIFE_SECONDS = 3600.0
RESTARTS = 30
"""torchrun gives a run up after so many."""
IMPORT_SECONDS = 3.0
"""A life under torchrun begins with importing torch."""


class ChaosError(ToldError):
    """The run cannot be broken, or what is left of it does not start again."""


@dataclass
class Score:
    """What has been seen; `differences` holds a line for each thing that should not be."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    equal_rounds: int = 0
    slowest_leave_seconds: float = 0.0
    told_to_leave: int = 0
    differences: list[str] = field(default_factory=list)


class Chaos:
    """Rounds of one run: each is broken until it ends, and compared with the unbroken one."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, *, ranks: Sequence[int], seed: int, stop: bool = False
    ) -> None:
        self.arguments, self.folder = list(arguments), folder
        self.ranks, self.stop, self._last = ranks, stop, 0
        self.score = Score()
        self._random = random.Random(seed)  # noqa: S311
        self._life_seconds = 0.0

    def unbroken(self) -> None:
        """The run to compare with, and how long a life should last."""
        warm_up()
        run = self.folder / "unbroken"
        with LocalRanks([*self.arguments, f"--run.dir={run}"], self.ranks[0]) as ranks:
            while ranks.running and not (run / "metrics.jsonl").exists():
                time.sleep(0.01)
            started = ranks.seconds
            _expect_end(ranks)
            taken = ranks.seconds
        self._last = last = checkpoint.steps(str(run / "checkpoints"))[-1]
        config = read_config([*self.arguments], "python -m dcgan_dist.chaos")
        per_checkpoint = (taken - started) * min(1, config.run.checkpoint_steps / last)
        self._life_seconds = started + 4 * per_checkpoint
        print(f"unbroken: {last} steps in {taken:.1f} s, of which {started:.1f} s to start", flush=True)

    def rounds(self, kills: int) -> None:
        """Break run after run until `kills` are done, and let each end."""
        while (done := self.score.kills.total()) < kills or not self.score.rounds:
            run = self.folder / f"broken-{self.score.rounds}"
            self._break(run, kills - done)
            self._compare(run)

    def _break(self, run: Path, kills: int) -> None:
        """One run, killed at most `kills` times, to its end."""
        for life in itertools.count():
            count = self._random.choice(self.ranks)
            with LocalRanks([*self.arguments, f"--run.dir={run}"], count) as ranks:
                if life == kills:
                    _expect_end(ranks)
                    return
                when = self._wait(ranks, run)
                if not ranks.running:
                    _expect_end(ranks)
                    return
                (self._stop if self.stop else self._kill)(ranks, run, when)

    def restarts(self, kills: int) -> None:
        """One run after another under torchrun, which starts the ranks again after each kill of one."""
        while (done := self.score.kills.total()) < kills or not self.score.rounds:
            run = self.folder / f"restarted-{self.score.rounds}"
            wanted = min(kills - done, RESTARTS)
            with Torchrun(
                [*self.arguments, f"--run.dir={run}"], self.ranks[0], restarts=RESTARTS
            ) as torchrun:
                self._kill_ranks(torchrun, run, wanted)
                code = torchrun.wait(LIFE_SECONDS)
                if code:
                    raise ChaosError(f"torchrun ended with code {code}; it said: {torchrun.last}")
            self._compare(run)

    def _kill_ranks(self, torchrun: Torchrun, run: Path, kills: int) -> None:
        """Kill a rank of each of `kills` attempts, from the moment that it is there on."""
        before: set[int] = set()
        for _ in range(kills):
            while torchrun.running and not torchrun.has_started(before):
                time.sleep(0.02)
            end = time.monotonic() + self._random.uniform(0, IMPORT_SECONDS + self._life_seconds)
            while torchrun.running and time.monotonic() < end:
                time.sleep(0.02)
            ranks = torchrun.processes
            if not torchrun.running or len(ranks) < torchrun.ranks:
                return
            victim = self._random.choice(sorted(ranks))
            os.kill(ranks[victim], signal.SIGKILL)
            before = set(ranks.values())
            self.score.kills["under torchrun"] += 1
            newest = [0, *checkpoint.steps(str(run / "checkpoints"))][-1]
            number = self.score.kills.total()
            print(f"kill {number}: rank {victim} under torchrun; newest checkpoint {newest}", flush=True)

    def _compare(self, run: Path) -> None:
        self.score.rounds += 1
        found = list(differences(self.folder / "unbroken", run, exact=len(self.ranks) == 1))
        self.score.equal_rounds += not found
        self.score.differences += found
        print(f"{run.name} ended: {found[0] if found else 'as the unbroken run'}", flush=True)

    def _wait(self, ranks: LocalRanks, run: Path) -> str:
        """Until a random moment of this life, or its end."""
        end = self._random.uniform(0, self._life_seconds)
        while ranks.running and ranks.seconds < end:
            time.sleep(0.005)
        if self._random.random() < 0.5:
            return "anywhere"
        folder = str(run / "checkpoints")
        before = _listing(folder)
        while ranks.running and ranks.seconds < end + self._life_seconds:
            if _listing(folder) - before:
                time.sleep(self._random.uniform(0, 0.02))
                return "as it writes a checkpoint"
        return "anywhere"

    def _kill(self, ranks: LocalRanks, run: Path, when: str) -> None:
        victims = list(range(ranks.ranks))
        if self._random.random() < 0.5:
            victims = [self._random.choice(victims)]
        ranks.signal(signal.SIGKILL, *victims)
        life = ranks.seconds
        codes = self._leave(ranks)
        left = ranks.seconds - life
        self.score.kills[when] += 1
        steps = [0, *checkpoint.steps(str(run / "checkpoints"))]
        who = f"all {ranks.ranks} ranks" if len(victims) > 1 else f"rank {victims[0]} of {ranks.ranks}"
        number = self.score.kills.total()
        told = f"kill {number}: {who} after {life:.1f} s, {when}; newest checkpoint {steps[-1]}"
        print(f"{told}; all gone after {left:.1f} s, codes {codes}", flush=True)

    def _stop(self, ranks: LocalRanks, run: Path, when: str) -> None:
        """Stop one rank; the others leave, and it is killed then."""
        victim, began = self._random.randrange(ranks.ranks), ranks.seconds
        had_met, left = stops.stop(ranks, victim, seconds=LEAVE_SECONDS)
        taken = ranks.seconds - began
        steps = [0, *checkpoint.steps(str(run / "checkpoints"))]
        self.score.kills[when] += 1
        who = f"stop {self.score.kills.total()}: rank {victim} of {ranks.ranks} after {began:.1f} s, {when}"
        if left:
            self.score.slowest_leave_seconds = max(self.score.slowest_leave_seconds, taken)
            self.score.differences += stops.faults(ranks, victim, has_ended=steps[-1] == self._last)
        elif had_met:
            there = stops.still_there(ranks, victim)
            self.score.differences.append(f"{who}: ranks {there} are still there after {taken:.0f} s")
        ranks.signal(signal.SIGKILL, victim)
        codes = self._leave(ranks)
        gone = f"the others gone after {taken:.1f} s" if left else "not all had met"
        print(f"{who}; newest checkpoint {steps[-1]}; {gone}, codes {codes}", flush=True)

    def _leave(self, ranks: LocalRanks) -> list[int]:
        """The exit codes of all ranks once one was killed; none where they do not leave."""
        began = ranks.seconds
        try:
            codes = ranks.wait(LEAVE_SECONDS)
            if not self.stop:
                self.score.slowest_leave_seconds = max(
                    self.score.slowest_leave_seconds, ranks.seconds - began
                )
            return codes
        except TimeoutError:
            self.score.told_to_leave += 1
            ranks.signal(signal.SIGTERM, *range(ranks.ranks))
        try:
            return ranks.wait(LEAVE_SECONDS)
        except TimeoutError as error:
            self.score.differences.append(f"after a kill and SIGTERM, {error}")
            return []


def _listing(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208
    except FileNotFoundError:
        return set()


def _expect_end(ranks: LocalRanks) -> None:
    """Raises ChaosError where the run does not end well."""
    codes = ranks.wait(LIFE_SECONDS)
    if any(codes):
        bad = next(rank for rank, code in enumerate(codes) if code)
        last = (ranks.told(bad).strip().splitlines() or ["nothing"])[-1]
        raise ChaosError(f"training ended with codes {codes}; rank {bad} said: {last}")


def table(score: Score) -> str:
    """The result, a line each."""
    rows = {
        "kills": score.kills.total(),
        "of them as a checkpoint was written": score.kills["as it writes a checkpoint"],
        "runs broken and ended": score.rounds,
        "equal to the unbroken run": score.equal_rounds,
        "slowest to leave after a kill or stop": f"{score.slowest_leave_seconds:.1f} s",
        "left at SIGTERM, not yet met": score.told_to_leave,
    }
    return "\n".join([*(f"{name:<38}{value}" for name, value in rows.items()), *score.differences])


@command
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.chaos",
        description="Kill a run again and again and compare its end with an unbroken one. "
        "Settings of the run, such as --train.steps 200, may follow.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=argument, help="YAML file of the run")
    parser.add_argument("--kills", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--ranks", type=int, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--torchrun", action="store_true", help="kill single ranks, torchrun starts them again"
    )
    parser.add_argument(
        "--stop", action="store_true", help="stop one rank (SIGSTOP); the others must name it and leave"
    )
    parser.add_argument("--change-ranks", action="store_true", help="every life on 1 to 2 x RANKS processes")
    parser.add_argument(
        "--dir", type=argument, default="runs/chaos", help="a new folder (default: runs/chaos)"
    )
    parser.add_argument("--seed", type=int, default=0, help="other moments for another seed (default: 0)")
    args, rest = parser.parse_known_args(argv)
    words = [*([args.config] if args.config else []), *rest]
    chaos = _prepare(args, words)
    chaos.unbroken()
    (chaos.restarts if args.torchrun else chaos.rounds)(args.kills)
    print(table(chaos.score))
    return 1 if chaos.score.differences else 0


def _prepare(args: argparse.Namespace, words: list[str]) -> Chaos:
    """Everything checked before the first process. Raises ConfigError or ShardsError."""
    if args.torchrun and args.change_ranks:
        raise ConfigError("--torchrun keeps the number of ranks; leave out --change-ranks")
    if args.stop and (args.torchrun or args.change_ranks):
        raise ConfigError("--stop goes with neither --torchrun nor --change-ranks")
    for name, value, least in (("--kills", args.kills, 0), ("--ranks", args.ranks, 1 + args.stop)):
        if value < least:
            raise ConfigError(f"{name}={value} must be at least {least}")
    folder = Path(args.dir)
    if not store.is_local(args.dir) or folder.exists():
        raise ConfigError(f"--dir={args.dir} must be a local folder that is not there yet; name another")
    words += ["--train.precision=float64"] if args.change_ranks else []
    config = read_config(words, "python -m dcgan_dist.chaos")
    check(config, ranks=args.ranks)
    _check_length(config)
    counts = [args.ranks]
    if args.change_ranks:
        counts += [
            n for n in range(1, 2 * args.ranks + 1) if config.data.batch_images % n == 0 and n != args.ranks
        ]
    return Chaos(words, folder, ranks=counts, seed=args.seed, stop=args.stop)


def _check_length(config: Config) -> None:
    steps = total_steps(config, check_data(config))
    if steps <= config.run.checkpoint_steps:
        raise ConfigError(
            f"run.checkpoint_steps={config.run.checkpoint_steps} leaves nothing to go on from in a run of "
            f"{steps} steps; lower it"
        )
