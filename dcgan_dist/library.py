"""The commands from Python: `dcgan_dist.train`, `evaluate` and `load`, with exceptions instead of exit codes.

    run = dcgan_dist.train("configs/demo.yaml", {"train.steps": 200}, on_metrics=print)
    run.load().sample(16)             # (16, 3, S, S) in [-1, 1]
    dcgan_dist.evaluate(run)["scores"]["swd"]

A process keeps its signals and its life: in a notebook and in a thread as well. Kept out: what the commands
print, and the exit codes.
"""

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.rules import check, check_data, total_steps
from dcgan_dist.config.settings import Config, read_config
from dcgan_dist.evaluate import from_python as evaluate
from dcgan_dist.export import is_export, load_export
from dcgan_dist.probe import features
from dcgan_dist.ranks import agreement, launcher, world
from dcgan_dist.ranks.stopping import Signals
from dcgan_dist.run_folder import networks, untrusted
from dcgan_dist.run_folder.networks import Sampler
from dcgan_dist.run_folder.owner import hold
from dcgan_dist.run_folder.same_run import check_same_run

__all__ = ["Model", "Run", "evaluate", "load", "train"]

OnMetrics = Callable[[int, dict[str, float]], object]
"""Called with a step and its metrics, every `run.log_steps`; where it returns False the run stops, saved."""


@dataclass(frozen=True)
class Model(Sampler):
    """A trained generator, `sample` and call it; and of a run its discriminator, as `features`."""

    source: str = ""

    def features(
        self, images: NDArray[np.uint8], *, statistics: NDArray[np.uint8] | None = None
    ) -> NDArray[np.float32]:
        """D's maps of uint8 (n, S, S, 3), pooled as in the paper's section 5.1: (n, values) float32.

        Batch norm is frozen over `statistics`, pictures of the same size, or over `images` themselves.
        Raises ConfigError where there is no discriminator.
        """
        if is_export(self.source):
            raise ConfigError(
                f"{self.source} holds a generator alone; load the run that it was exported from"
            )
        d, _, _ = networks.load_discriminator(self.source, step=self.step)
        d.to(next(self.generator.parameters()).device)
        features.freeze(d, images if statistics is None else statistics)
        return features.discriminator_features(d, images, layers=features.choose_layers(d.net, ()))


@dataclass(frozen=True)
class Run:
    """A run folder or URL, and the step that the training came to; `finished` where that was its last."""

    dir: str
    step: int
    finished: bool

    @property
    def checkpoints(self) -> list[int]:
        """The steps that can be loaded, oldest first."""
        return checkpoint.steps(untrusted.folder(self.dir, "checkpoints"))

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl, the scores' too."""
        return [json.loads(line) for line in untrusted.read(self.dir, "metrics.jsonl").splitlines()]

    def load(self, *, step: int | None = None, device: str = "cpu") -> Model:
        """Its networks, at its newest or a given checkpoint."""
        return load(self, step=step, device=device)


def train(
    config: Config | Mapping[str, Any] | str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    on_metrics: OnMetrics | None = None,
    handle_signals: bool = False,
) -> Run:
    """Train, or go on with, the run of a YAML file, a Config or a dict; `settings` go before it.

    Dicts have dotted names, `{"train.steps": 9}`, or groups, `{"train": {"steps": 9}}`.

    On several ranks call it on each, under torchrun. With `on_metrics` nothing is printed. With
    `handle_signals`, in the main thread, a first SIGINT or SIGTERM stops the run after a step, saved; else
    Ctrl-C is the caller's, and the run can go on from its newest checkpoint.

    Raises ConfigError, ShardsError, CheckpointError, UnsavedError, DivergedError or LostRanksError.
    """
    own = Signals(owns_process=False)
    with own if handle_signals else nullcontext(own) as signals:
        run_dir, stopped, last = run(words(config, settings), signals, on_metrics=on_metrics)
    return Run(run_dir, last if stopped is None else stopped, stopped is None)


def load(run: Run | str, *, step: int | None = None, device: str = "cpu") -> Model:
    """The networks of a run, at its newest or a given checkpoint, or the generator of an export's folder.

    Raises CheckpointError where there is none, ConfigError where its settings or the device are wrong.
    """
    place = _place(run)
    sampler = load_export(place, device=device) if is_export(place) else None
    found = sampler or networks.load(place, step=step, device=device)
    return Model(found.generator, found.config, found.step, found.averaged, place)


def _place(run: Run | str) -> str:
    return run.dir if isinstance(run, Run) else run


def words(config: Config | Mapping[str, Any] | str | None, settings: Mapping[str, Any] | None) -> list[str]:
    """A command line of the same meaning. Raises ConfigError."""
    if isinstance(config, Config | Mapping):
        given = asdict(config) if isinstance(config, Config) else config
        return words(None, {**_flat(given), **_flat(settings or {})})
    path = [] if config is None else [f"--config={config}"]
    return path + [f"--{name}={_text(value)}" for name, value in _flat(settings or {}).items()]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train": {"steps": 1}}` as `{"train.steps": 1}`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        found |= {f"{name}.{key}": one for key, one in inner} if inner else {name: value}
    return found


def _text(value: object) -> str:
    return "null" if value is None else str(value)


class Tell(Protocol):
    """Who hears, while a run goes on, where it is, that its ranks have met, and of an error at once."""

    run_dir: str
    joined: bool

    def at_once(self, error: BaseException) -> None: ...


def run(
    argv: Sequence[str], signals: Signals, *, tell: Tell | None = None, on_metrics: OnMetrics | None = None
) -> tuple[str, int | None, int]:
    """A run from its command line on: its folder, the step at which it was stopped, and its last."""
    # Here and not at the top: who draws need not wait for what trains.
    from dcgan_dist.training import trainer

    tell = tell or SimpleNamespace(run_dir="", joined=False, at_once=lambda error: None)
    config = read_config(argv, "python -m dcgan_dist.train")
    check(config, ranks=launcher.launched_ranks())
    index = check_data(config)
    last = total_steps(config, index)
    check_same_run(argv, config)
    tell.run_dir = config.run.dir
    with world.join(
        device=config.train.device,
        timeout_seconds=config.train.timeout_seconds,
        facts=agreement.facts(config, index),
        owns_process=signals.owns_process,
        determinism="error" if config.train.deterministic else "default",
        allow_tf32=config.train.allow_tf32,
        tell=tell.at_once,
    ) as here:
        tell.joined = signals.patient = True

        def heard(step: int, values: dict[str, float]) -> None:
            if on_metrics is not None and on_metrics(step, values) is False:
                signals.received = signals.received or signal.SIGTERM

        with hold(config.run.dir, here) as owner:
            stopped = trainer.train(
                *(config, here, index),
                signals=signals,
                owner=owner,
                on_metrics=heard,
                quiet=on_metrics is not None,
            )
    return config.run.dir, stopped, last
