"""The training loop, and the trainer of one rank: one update after another, saved, resumed and watched."""

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dcgan_dist import pictures
from dcgan_dist.checkpoints.snapshot import Snapshot, snapshot
from dcgan_dist.config.rules import total_steps
from dcgan_dist.config.settings import Config
from dcgan_dist.gan.fingerprint import fingerprint
from dcgan_dist.gan.model import Generator
from dcgan_dist.gan.noise import Noise
from dcgan_dist.gan.step import Cast, Metrics, gradient_norm, means, update_both, update_d, update_g
from dcgan_dist.ranks import launcher
from dcgan_dist.ranks.determinism import lenient
from dcgan_dist.ranks.lost import is_loss
from dcgan_dist.ranks.machines import few_cores, shared_gpus
from dcgan_dist.ranks.stopping import Signals, Stop
from dcgan_dist.ranks.world import World
from dcgan_dist.run_folder.owner import Owner
from dcgan_dist.run_folder.versions import versions
from dcgan_dist.scores.while_training import Scorer
from dcgan_dist.seeds import seed_for
from dcgan_dist.stream.feed import USED, Feed, open_feed
from dcgan_dist.stream.plan import Plan, lanes
from dcgan_dist.training import alarms
from dcgan_dist.training.alarms import DivergedError
from dcgan_dist.training.coordinator import Coordinator, Silent, coordinate
from dcgan_dist.training.graphs import Graphs, Inputs
from dcgan_dist.training.meter import Meter
from dcgan_dist.training.players import make_cast, make_players
from dcgan_dist.training.precision import settle
from dcgan_dist.training.resume import newest_on_all, put_back
from shards import Index
from shards.dataset.reader import Blocks

log = logging.getLogger("dcgan_dist")


def train(
    config: Config,
    here: World,
    index: Index,
    *,
    signals: Signals,
    owner: Owner | None,
    on_metrics: Callable[[int, dict[str, float]], object] = lambda step, values: None,
    quiet: bool = False,
) -> int | None:
    """The whole run, or the rest of it; the step at which a signal stopped it before its end.

    `on_metrics` is called with each line of metrics, on every rank; if `quiet`, nothing is printed.
    """
    config = settle(config, here)
    trainer = Trainer(config, here, dataset=index.identity)
    first, last = trainer.resume(owner.saved if owner else 0), total_steps(config, index)
    _tell_first(first, last, here, quiet=quiet)
    blocks = Blocks(config.data.url, index)
    plan = Plan(blocks.kept_counts, batch_images=config.data.batch_images, seed=config.train.seed)
    run, scorer = config.run, Scorer(config, here, blocks) if config.eval.steps else None
    feed = open_feed(config, blocks, plan, lanes=trainer.rows, first_step=first, stop_step=last)
    told = coordinate(config, owner, first_step=first, total_steps=last, best=trainer.best, quiet=quiet)
    with feed, told as coordinator, here.leaving_at_error():
        meter = Meter(feed, here, config.data.batch_images)
        stop = Stop(signals, here.store, here.device, here.rollcall)
        clock = Clock(here, run.checkpoint_minutes, first)
        show_first(coordinator, trainer, blocks, first)
        for step in range(first, last):
            if not advance(trainer, feed, stop, step):
                part(coordinator, trainer, step, saved=step == clock.saved_step)
                return step
            done = step + 1
            meter.tick()
            coordinator.tick()
            stopped = done < last and stop.after(done)
            if done % run.sample_steps == 0 or done == last:
                coordinator.sample(done, trainer.shown)
            if done % run.log_steps == 0 or done == last:
                values = trainer.metrics(done) | meter.read(done)
                coordinator.log(done, values, meter.by_rank)
                on_metrics(done, values)
            if scorer is not None and scorer.due(done, last):
                with lenient():
                    scores = scorer.scores(done, trainer.shown)
                coordinator.score(done, scores, scorer.protocol)
            late = done % run.log_steps == 0 and clock.is_late()
            if done % run.checkpoint_steps == 0 or done == last or stopped or late:
                clock.saved(done)
                trainer.check_weights(done)
                coordinator.save(done, *trainer.state(done))
            if stopped:
                return done
    return None


def _tell_first(first: int, last: int, here: World, *, quiet: bool) -> None:
    """What the run runs on, and what may be wrong with it."""
    scarce = few_cores(here.device, sharing=launcher.sharing_cores())
    if scarce:
        log.warning("rank %d: %s", here.rank, scarce)
    if here.rank == 0 and first and not quiet:
        print(f"going on from step {first} on {here.ranks} ranks", flush=True)
    if here.rank == 0 and here.runs_on is not None:
        if not quiet:
            print(here.runs_on, flush=True)
        shared = shared_gpus(here.runs_on)
        if shared:
            log.warning("%s", shared)
    if first > last and here.rank == 0:
        log.warning("the run is at step %d, past the %d that are asked for: nothing is trained", first, last)


def show_first(coordinator: Coordinator | Silent, trainer: "Trainer", blocks: Blocks, first: int) -> None:
    """Real pictures, and at the start of a run what G draws before its first step."""
    coordinator.show_real(blocks, write=first == 0)
    if first == 0:
        coordinator.sample(0, trainer.shown)


class Clock:
    """When the last checkpoint was taken: `is_late` where that is `minutes` ago, by the clock of rank 0."""

    def __init__(self, here: World, minutes: float | None, first: int) -> None:
        self._here, self._minutes = here, minutes
        self.saved(first)

    def saved(self, step: int) -> None:
        self.saved_step, self._time = step, time.monotonic()

    def is_late(self) -> bool:
        """The same answer on all ranks, which must all ask; never where there are no `minutes`."""
        if self._minutes is None:
            return False
        return bool(self._here.agree(int(time.monotonic() - self._time >= 60 * self._minutes)))


def part(coordinator: Coordinator | Silent, trainer: "Trainer", done: int, *, saved: bool) -> None:
    """Leave the other ranks where the step after `done` was given up, with what was done `saved`."""
    trainer.here.part()
    if not saved:
        trainer.check_finite(done)
        coordinator.save(done, *trainer.state(done))


def advance(trainer: "Trainer", feed: Feed, stop: Stop, step: int) -> bool:
    """Do step `step`; False where the ranks are to stop and the data of one do not come, so that none can."""
    try:
        batch = feed.batch_unless(partial(stop.in_vain, step))
        if batch is not None:
            trainer.here.begin(step)
            trainer.step(step, batch)
        return batch is not None
    except RuntimeError as error:
        if not (is_loss(error) and stop.in_vain(step)):
            raise
    return False  # a rank that gave the step up has left


class Trainer:
    """Both players, their updates, and all the state that a checkpoint holds.

    `dataset` is the identity of the one that is trained on.
    """

    def __init__(self, config: Config, here: World, *, dataset: str = "") -> None:
        self.config, self.here, self.dataset = config, here, dataset
        self.g, self.d = make_players(config, here)
        self.cast: Cast = make_cast(config, here)
        self.dtype = next(self.g.bare.parameters()).dtype
        self.rows = lanes(here.rank, here.ranks, config.data.batch_images)
        self.noise = Noise(self.rows, self.g.bare.net.z_size, kind=config.model.noise, device=here.device)
        self.ema = self.g.bare.replica() if config.train.ema_decay is not None else None
        self.best: dict[str, Any] = {}
        """What the checkpoint gone on from says of the best one."""
        self._last: Metrics = {}
        self.graphs = self._graphs() if config.train.graphs else None

    @property
    def shown(self) -> Generator:
        """The generator that samples are drawn from."""
        return self.ema or self.g.bare

    def updates_d(self, step: int) -> bool:
        """Whether step `step` needs pictures."""
        used = USED[self.config.train.update_rule]
        return used[step % len(used)]

    def step(self, step: int, batch: NDArray[np.uint8]) -> None:
        """Step `step` of the run on this rank's rows (n, S, S, 3) of the global batch."""
        shown = batch if self.updates_d(step) else None
        if self.graphs is not None:
            key = self.noise.key(seed_for(self.config.train.seed, "z", step))
            self._last |= self.graphs.update(shown is not None, step, key, shown)
        elif shown is None:
            self.update(step)
        else:
            self.update(step, pictures.to_device(shown, self.here.device, self.dtype))

    def update(self, step: int, real: Tensor | None = None) -> None:
        """Step `step`, whose pictures `real` (n, 3, S, S) are on the device where it updates D."""
        z = self.noise.draw(seed_for(self.config.train.seed, "z", step)).to(self.dtype)
        assert (real is not None) or not self.updates_d(step)
        self._last |= self._learn(real if self.updates_d(step) else None, z)

    def _learn(self, real: Tensor | None, z: Tensor) -> Metrics:
        """One update: of D on `real`, and of G where none is given or the rule is to update both."""
        both = self.config.train.update_rule == "both"
        if real is None:
            found = update_g(self.g, self.d, z=z, cast=self.cast)
        else:
            update = update_both if both else update_d
            found = update(self.g, self.d, real=real, z=z, cast=self.cast)
        if self.ema is not None and (both or real is None):
            self._follow(self.ema)
        return found

    def _graphs(self) -> Graphs[Metrics]:
        side = self.g.bare.net.image_size
        inputs = Inputs((len(self.rows), side, side, 3), self.here.device)

        def work(shown: Hashable) -> Metrics:
            real = pictures.spread(inputs.batch, self.dtype) if shown else None
            return self._learn(real, self.noise.of_key(inputs.key).to(self.dtype))

        def prints() -> Tensor:
            nets = (self.g.bare, self.d.bare, *([self.ema] if self.ema else []))
            return torch.stack([fingerprint(net) for net in nets])

        return Graphs(inputs, work, state=lambda: dict(self._numbers()), prints=prints)

    def metrics(self, step: int) -> dict[str, float]:
        """Means over the global batch, of each network updated since the last call; all ranks must call it.

        Raises DivergedError.
        """
        last, names = means(self._last), sorted(self._last)
        values = self.here.mean(torch.stack([last[name].float() for name in names])).tolist()
        told = dict(zip(names, values, strict=True))
        for name, net in (("d", self.d.bare), ("g", self.g.bare)):
            if f"loss/{name}" in told:  # gradients are those of the global batch already
                told[f"gradient/{name}"] = float(gradient_norm(net))
        self._last = {}
        for name, value in told.items():
            if name.startswith("loss/") and not math.isfinite(value):
                raise DivergedError(f"step {step}: {name} is {value}; lower optim.lr")
        return told

    @torch.no_grad()
    def _follow(self, ema: Generator) -> None:
        assert self.config.train.ema_decay is not None
        weight = 1 - self.config.train.ema_decay
        torch._foreach_lerp_(list(ema.parameters()), list(self.g.bare.parameters()), weight)

    def check_weights(self, step: int) -> None:
        """Raises DivergedError rather than let broken networks, or other ones by rank, into a checkpoint."""
        self._check_graphs()
        nets = {"g": self.g.bare, "d": self.d.bare}
        own = torch.stack([*(fingerprint(net) for net in nets.values()), self._are_finite().long()])
        table = self.here.gather(own).cpu()
        finite = table[:, -1]
        if not finite[self.here.rank]:
            self._name_not_finite(step)
        alarms.check_same(table[:, :-1], tuple(nets), step=step)
        if not finite.all():
            raise DivergedError(f"step {step}: rank {int(finite.argmin())} has numbers that are not finite")

    def check_finite(self, step: int) -> None:
        """`check_weights` without the other ranks. Raises DivergedError, and StaleInputError of graphs."""
        self._check_graphs()
        if not self._are_finite():
            self._name_not_finite(step)

    def _check_graphs(self) -> None:
        if self.graphs is not None:
            self.graphs.inputs.check_all()

    def _are_finite(self) -> Tensor:
        """() on the device, which nobody has waited for."""
        # The largest of a tensor is none where any is none: a few launches for all of them.
        largest = torch._foreach_norm([value for _, value in self._numbers()], math.inf)
        return torch.stack([value.to(self.dtype) for value in largest]).isfinite().all()

    def _name_not_finite(self, step: int) -> None:
        for what, value in self._numbers():
            if not bool(torch.isfinite(value).all()):
                raise DivergedError(
                    f"step {step}: {what} are not finite; lower optim.lr or optim.weight_decay"
                )

    def _numbers(self) -> Iterator[tuple[str, Tensor]]:
        """All that training goes on from, with its name."""
        for name, player in (("g", self.g), ("d", self.d)):
            for key, value in player.bare.state_dict().items():
                yield f"weights {name}.{key}", value
            for key, weight in player.bare.named_parameters():
                for kind, value in player.optim.state.get(weight, {}).items():
                    yield f"Adam's {kind} of {name}.{key}", value
        for key, value in self.ema.state_dict().items() if self.ema else ():
            yield f"weights ema.{key}", value

    def state(self, step: int) -> tuple[Snapshot, dict[str, object]]:
        """A copy of everything that a resumed run needs, and the manifest's facts; on rank 0 alone."""
        if self.here.rank:
            return Snapshot(), {}
        facts = {
            "images_seen": step * self.config.data.batch_images,
            "ranks": self.here.ranks,
            "dataset": self.dataset,
            "config": asdict(self.config),
            "versions": versions(),
            "runs_on": self.here.runs_on.facts() if self.here.runs_on else {},
            "scalers": {"g": self.g.scaler.state_dict(), "d": self.d.scaler.state_dict()},
        }
        return snapshot(self.g, self.d, self.ema), facts

    def resume(self, saved: int = 0) -> int:
        """Take up the newest whole checkpoint that rank 0 finds; the step to go on with.

        `saved` is a step that was saved there once. Raises CheckpointError or StoreError.
        """
        found = newest_on_all(self.config.run.dir, self.here, saved)
        if found is None:
            return 0
        self.best = put_back(*found, self.config, self.g, self.d, self.ema, dataset=self.dataset)
        return found[0].step
