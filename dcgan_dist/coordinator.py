"""What rank 0 does beside training: checkpoints in the background, TensorBoard, metrics.jsonl, sample
grids, progress.

    config.yaml  metrics.jsonl  tensorboard/  samples/step-*.png  real.png  checkpoints/

A run folder may be any fsspec URL. Files that grow are then kept in a temporary folder and copied there
whole.
"""

import json
import logging
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dcgan_dist import alarms, checkpoint, pictures
from dcgan_dist.alarms import Alarms
from dcgan_dist.config import Config, dump
from dcgan_dist.model import Generator, draw_noise
from dcgan_dist.nets import parse_net
from dcgan_dist.owner import Owner
from dcgan_dist.profiling import Trace
from dcgan_dist.seeds import seed_for
from dcgan_dist.writer import Writer
from shards import ShardsError, store
from shards.reader import Blocks

log = logging.getLogger("dcgan_dist")

LAYOUT = {
    "training": {
        "losses": ["Multiline", ["loss/d", "loss/g"]],
        "D(x), D(G(z)) before and after D's update": [
            "Multiline",
            ["d/real", "d/fake_before", "d/fake_after"],
        ],
        "gradient norms": ["Multiline", ["gradient/d", "gradient/g"]],
        "images per second": ["Multiline", ["speed/images_per_second"]],
        "share of time waiting for data": ["Multiline", ["speed/data_wait_share"]],
    }
}

BOARD_RANKS = 16
"""Ranks with curves of their own in TensorBoard; metrics.jsonl has all."""


class Folder:
    """A run folder at `url`, with a place on this machine for the files that grow.

    Nothing is written once another run owns it: UnsavedError.
    """

    def __init__(self, url: str, owner: Owner) -> None:
        self.url, self._owner = url, owner
        owner.check()
        for name in ("samples", "checkpoints", "tensorboard"):
            store.make_folder(store.join(url, name))
        self._scratch = None if store.is_local(url) else tempfile.TemporaryDirectory(prefix="dcgan_dist-")
        self.growing = Path(self._scratch.name if self._scratch else url.removeprefix("file://"))

    def write(self, name: str, data: bytes) -> None:
        store.write_bytes(store.join(self.url, name), data)

    def publish(self) -> None:
        """Copy the growing files to where the run folder is."""
        self._owner.check()
        if self._scratch is not None:
            for path in sorted(p for p in self.growing.rglob("*") if p.is_file()):
                self.write(path.relative_to(self.growing).as_posix(), path.read_bytes())

    def close(self) -> None:
        """Publish for the last time."""
        self.publish()
        if self._scratch is not None:
            self._scratch.cleanup()


class Coordinator:
    """Rank 0's side of a run; see `Silent` for the other ranks."""

    def __init__(self, config: Config, owner: Owner, *, first_step: int, total_steps: int) -> None:
        self.config, self._owner = config, owner
        self.folder = Folder(config.run.dir, owner)
        self.folder.write("config.yaml", dump(config).encode())
        self._checkpoints = store.join(config.run.dir, "checkpoints")
        self._best = (math.inf, 0)
        self._metrics = self._open_metrics(first_step)
        self._board = SummaryWriter(
            str(self.folder.growing / "tensorboard"), purge_step=first_step + 1 if first_step else None
        )
        if not first_step:
            self._board.add_custom_scalars(LAYOUT)
        self._bar = tqdm(
            total=total_steps, initial=first_step, unit="step", disable=not sys.stderr.isatty(), smoothing=0.1
        )
        self._total = total_steps
        if first_step >= total_steps:
            print(f"nothing left to do: the run is at step {first_step}, and {total_steps} are asked for")
        self._alarms, self._real_diversity = Alarms(), 1.0
        self._writer = Writer()
        # Newer ones than that which the run goes on from were passed over.
        self._damaged = {s for s in checkpoint.steps(self._checkpoints) if s > first_step}
        for name in checkpoint.foreign(self._checkpoints):
            log.warning("%s is none of ours; left alone", store.join(self._checkpoints, name))
        self._trace = Trace(config.run.profile_steps, self._write_trace)

    def log(self, step: int, values: dict[str, float], by_rank: dict[str, list[float]]) -> None:
        """One line of metrics, everywhere; `by_rank` holds a value for each rank."""
        self._metrics.write(json.dumps({"step": step, **values, "ranks": by_rank}) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        for name, row in by_rank.items():
            for rank, value in enumerate(row[:BOARD_RANKS] if len(row) > 1 else []):
                self._board.add_scalar(f"rank-{rank:02d}/{name.replace('/', '-')}", value, step)
        for text in self._alarms.of_losses(values):
            self._alarm(step, text)
        shown = [f"{n[-1].upper()} {values[n]:.3f}" for n in ("loss/d", "loss/g") if n in values]
        speed, wait = values["speed/images_per_second"], values["speed/data_wait_share"]
        told = f"{' '.join(shown)} {speed:,.0f} images/s wait {wait:.0%}"
        if self._bar.disable:  # the bar names the time left by itself
            left = math.ceil((self._total - step) * values["speed/step_seconds"])
            print(f"step {step}/{self._total} {told}, {left:,} s left", flush=True)
        else:
            self._bar.set_postfix_str(told)

    def _alarm(self, step: int, text: str) -> None:
        log.warning("step %d: %s", step, text)
        self._board.add_text("alarms", text, step)

    def score(self, step: int, values: dict[str, float], protocol: dict[str, Any]) -> None:
        """The scores of step's samples, in lines and curves of their own."""
        told = {f"eval/{name}": value for name, value in values.items()}
        self._metrics.write(json.dumps({"step": step, **told, "protocol": protocol}) + "\n")
        self._metrics.flush()
        for name, value in told.items():
            self._board.add_scalar(name, value, step)
        self._note_best(step, told)

    def _note_best(self, step: int, values: Mapping[str, float]) -> None:
        """Keep in mind the step with the lowest score of the kind that the run is to keep."""
        found = values.get(f"eval/{self.config.run.checkpoint_best}", math.nan)
        if found < self._best[0]:
            self._best = found, step

    def tick(self) -> None:
        """A step is done. Raises UnsavedError when checkpoints can no longer be written."""
        self._bar.update()
        self._trace.tick()
        self._writer.check()
        self._owner.check(now=False)

    def show_real(self, blocks: Blocks, *, write: bool) -> None:
        """A fair sample of the real pictures, to compare with."""
        real = blocks.sample(self.config.run.sample_images)
        self._real_diversity = alarms.diversity(real)
        if write:
            self._picture("real", real, 0, "real.png")

    def sample(self, step: int, g: Generator) -> None:
        """A grid of G at the run's fixed z, with batch statistics of that very batch, as the authors do."""
        responses: dict[str, Tensor] = {}
        preview = g.replica()
        for number, norm in enumerate(preview.norms):
            norm.register_forward_hook(partial(_keep, responses, f"norms.{number}"))
        with torch.no_grad():
            z = fixed_noise(self.config).to(next(preview.parameters()))
            images = pictures.to_uint8(preview(z))
        self._picture("samples", images, step, f"samples/{checkpoint.stem(step)}.png")
        share = alarms.diversity(images) / max(self._real_diversity, 1e-9)
        self._board.add_scalar("samples/diversity", share, step)
        for text in self._alarms.of_diversity(share) + self._alarms.of_filters(responses):
            self._alarm(step, text)
        self._board.flush()
        self.folder.publish()

    def _write_trace(self, data: bytes) -> None:
        store.make_folder(store.join(self.folder.url, "profile"))
        self.folder.write("profile/rank-0.json.gz", data)

    def _picture(self, tag: str, images: NDArray[np.uint8], step: int, name: str) -> None:
        self._board.add_image(tag, pictures.grid(images), step, dataformats="HWC")
        self.folder.write(name, pictures.grid_png(images))

    def save(self, step: int, parts: checkpoint.Parts, facts: dict[str, Any]) -> None:
        """Write a checkpoint in the background."""
        # The best as of now: a better one may be noted while this is written, and is not saved then.
        self._writer.save(step, partial(self._write, step, parts, facts, best=self._best[1]))

    def _write(self, step: int, parts: checkpoint.Parts, facts: dict[str, Any], *, best: int) -> None:
        self._owner.check()
        checkpoint.write(self._checkpoints, step, parts, facts)
        self._damaged.discard(step)
        run = self.config.run
        try:
            checkpoint.prune(
                self._checkpoints,
                keep=run.checkpoints_kept,
                keep_steps=run.checkpoint_keep_steps,
                pinned=(best,),
                damaged=self._damaged,
            )
            self._owner.note_saved(step)
        except ShardsError as error:  # the new one is whole; the next prune removes what is left
            log.warning("old checkpoints are left: %s", error)

    def close(self) -> None:
        """Wait for the writer and leave every file complete."""
        try:
            self._writer.close()
        finally:
            self._bar.close()
            self._board.close()
            self._metrics.close()
            self.folder.close()

    def _open_metrics(self, first_step: int) -> Any:
        """metrics.jsonl without the lines of steps that will be run again."""
        path = self.folder.growing / "metrics.jsonl"
        kept = []
        url = store.join(self.folder.url, "metrics.jsonl")
        if first_step and store.exists(url):
            for line in store.read_bytes(url).decode().splitlines():
                try:
                    values = json.loads(line)
                except ValueError:  # cut short by a kill
                    continue
                if values["step"] <= first_step:
                    kept.append(line)
                    self._note_best(values["step"], values)
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        return path.open("a", encoding="utf-8")


def _keep(responses: dict[str, Tensor], name: str, norm: nn.Module, given: object, made: Tensor) -> None:
    """A forward hook; the ReLU that follows works in place, so that what is kept is what is drawn."""
    responses[name] = made


class Silent:
    """The coordinator of every rank but 0: it does nothing."""

    def log(self, step: int, values: dict[str, float], by_rank: dict[str, list[float]]) -> None: ...
    def score(self, step: int, values: dict[str, float], protocol: dict[str, Any]) -> None: ...
    def tick(self) -> None: ...
    def show_real(self, blocks: Blocks, *, write: bool) -> None: ...
    def sample(self, step: int, g: Generator) -> None: ...
    def save(self, step: int, parts: checkpoint.Parts, facts: dict[str, Any]) -> None: ...


@contextmanager
def coordinate(
    config: Config, owner: Owner | None, *, first_step: int, total_steps: int
) -> Iterator[Coordinator | Silent]:
    """The coordinator of this rank; a rank that does not own the run folder writes nothing."""
    if owner is None:
        yield Silent()
        return
    coordinator = Coordinator(config, owner, first_step=first_step, total_steps=total_steps)
    try:
        yield coordinator
    finally:
        coordinator.close()


def fixed_noise(config: Config) -> Tensor:
    """The z of every sample grid of a run."""
    return draw_noise(
        config.run.sample_images,
        parse_net(config.model.net).z_size,
        kind=config.model.noise,
        seed=seed_for(config.train.seed, "samples"),
    )


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("dcgan_dist", "torch", "numpy")}
