"""What rank 0 keeps in the run folder beside training: checkpoints in the background, metrics.jsonl, sample
grids; and progress.

    config.yaml  metrics.jsonl  tensorboard/  samples/step-*.png  real.png  checkpoints/

Kept out: files that grow, which are `growing_files`'; what TensorBoard shows, which is `tensorboard`'s.
"""

import logging
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from dcgan_dist import pictures
from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.snapshot import Snapshot
from dcgan_dist.checkpoints.writer import UnsavedError, Writer
from dcgan_dist.config.settings import Config, dump
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import Generator
from dcgan_dist.gan.noise import draw_noise
from dcgan_dist.run_folder.growing_files import Folder, History
from dcgan_dist.run_folder.owner import Owner
from dcgan_dist.seeds import seed_for
from dcgan_dist.training import alarms
from dcgan_dist.training.alarms import Alarms
from dcgan_dist.training.profiling import Trace
from dcgan_dist.training.tensorboard import Board, errors_told_once
from shards import ShardsError
from shards.dataset.reader import Blocks
from shards.redact import is_secret
from shards.storage import store
from shards.storage.retries import one_line

log = logging.getLogger("dcgan_dist")


class Coordinator:
    """Rank 0's side of a run; see `Silent` for the other ranks."""

    def __init__(
        self,
        config: Config,
        owner: Owner,
        *,
        first_step: int,
        total_steps: int,
        best: Mapping[str, Any] | None,
        quiet: bool = False,
    ) -> None:
        self.config, self._owner, self._quiet = config, owner, quiet
        self.folder = Folder(config.run.dir, owner)
        settings = dump(config)  # with its URLs as they are: the run goes on from here
        self.folder.write("config.yaml", settings.encode(), private=is_secret(settings))
        self._checkpoints = store.join(config.run.dir, "checkpoints")
        self._history = History(self.folder, first_step)
        self._scores: dict[int, float] = {}  # of the kind that the best checkpoint is chosen by
        for row in [best or {}, *self._history.kept]:
            self._note_score(row)
        self._diversity: dict[str, float] = {}  # to be told with the next line
        self._board = Board(self.folder.growing, first_step)
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            disable=quiet or not sys.stderr.isatty(),
            smoothing=0.1,
        )
        self._total = total_steps
        if first_step >= total_steps and not quiet:
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
        self._history.write({"step": step, **values, **self._diversity, "ranks": by_rank})
        self._diversity = {}
        self._board.curves(step, values)
        self._board.curves_by_rank(step, by_rank)
        for text in self._alarms.of_losses(values):
            self._alarm(step, text)
        shown = [f"{n[-1].upper()} {values[n]:.3f}" for n in ("loss/d", "loss/g") if n in values]
        speed, wait = values["speed/images_per_second"], values["speed/data_wait_share"]
        told = f"{' '.join(shown)} {speed:,.0f} images/s wait {wait:.0%}"
        if self._quiet:
            return
        if self._bar.disable:  # the bar names the time left by itself
            left = math.ceil((self._total - step) * values["speed/step_seconds"])
            print(f"step {step}/{self._total} {told}, {left:,} s left", flush=True)
        else:
            self._bar.set_postfix_str(told)

    def _alarm(self, step: int, text: str) -> None:
        log.warning("step %d: %s", step, text)
        self._board.alarm(step, text)

    def score(self, step: int, values: dict[str, float], protocol: dict[str, Any]) -> None:
        """The scores of step's samples, in lines and curves of their own."""
        told = {f"eval/{name}": value for name, value in values.items()}
        self._history.write({"step": step, **told, "protocol": protocol})
        self._board.curves(step, told)
        self._note_score({"step": step, **told})

    def _note_score(self, row: Mapping[str, Any]) -> None:
        """Keep in mind a score of the kind that chooses the best checkpoint."""
        step, found = row.get("step"), row.get(f"eval/{self.config.run.checkpoint_best}")
        if type(step) is int and isinstance(found, int | float) and math.isfinite(found):
            self._scores[step] = found

    def _best(self, step: int) -> dict[str, Any]:
        """The row of the lowest score of all checkpoints that are there, and of `step`, which is to be."""
        if not self._scores:
            return {}
        there = {step, *checkpoint.steps(self._checkpoints)}
        scores = {scored: score for scored, score in list(self._scores.items()) if scored in there}
        if not scores:
            return {}
        best = min(scores, key=lambda scored: scores[scored])
        return {"step": best, f"eval/{self.config.run.checkpoint_best}": scores[best]}

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
        self._writer.draw(partial(self._show, images, step))
        share = alarms.diversity(images) / max(self._real_diversity, 1e-9)
        self._board.curves(step, {"samples/diversity": share})
        self._diversity = {"samples/diversity": share} if step else {}
        if self._diversity and step % self.config.run.log_steps and step != self._total:
            self._history.write({"step": step, **self._diversity})
            self._diversity = {}
        for text in self._alarms.of_diversity(share) + self._alarms.of_filters(responses):
            self._alarm(step, text)

    def _show(self, images: NDArray[np.uint8], step: int) -> None:
        """Beside training: to draw a picture file takes as long as some steps."""
        self._picture("samples", images, step, f"samples/{checkpoint.stem(step)}.png")
        self._board.flush()
        self.folder.publish()

    def _write_trace(self, data: bytes) -> None:
        store.make_folder(store.join(self.folder.url, "profile"))
        self.folder.write("profile/rank-0.json.gz", data)

    def _picture(self, tag: str, images: NDArray[np.uint8], step: int, name: str) -> None:
        self._board.picture(step, tag, pictures.grid(images))
        self.folder.write(name, pictures.grid_png(images))

    def save(self, step: int, state: Snapshot, facts: dict[str, Any]) -> None:
        """Write a checkpoint in the background."""
        self._writer.save(step, partial(self._write, step, state, facts))

    def _write(self, step: int, state: Snapshot, facts: dict[str, Any]) -> None:
        self._owner.check()
        self._history.keep()
        best = self._best(step)
        checkpoint.write(self._checkpoints, step, state.parts(), facts | {"best": best})
        self._damaged.discard(step)
        run = self.config.run
        try:
            checkpoint.prune(
                self._checkpoints,
                keep=run.checkpoints_kept,
                keep_steps=run.checkpoint_keep_steps,
                pinned=(best.get("step", 0),),
                damaged=self._damaged,
            )
            self._owner.note_saved(step)
        except ShardsError as error:  # the new one is whole; the next prune removes what is left
            log.warning("old checkpoints are left: %s", error)

    def close(self) -> None:
        """Wait for the writer and leave every file complete."""
        with ExitStack() as last:  # all of them, from the last to the first, whichever fails
            last.callback(self.folder.close)
            last.callback(self._history.close)
            last.callback(self._board.close)
            last.callback(self._trace.close)
            last.callback(self._bar.close)
            last.callback(self._writer.close)


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
    def save(self, step: int, state: Snapshot, facts: dict[str, Any]) -> None: ...


@contextmanager
def coordinate(
    config: Config,
    owner: Owner | None,
    *,
    first_step: int,
    total_steps: int,
    best: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Iterator[Coordinator | Silent]:
    """The coordinator of this rank; a rank that does not own the run folder writes nothing.

    `best` is what the checkpoint gone on from says of the best one. Raises UnsavedError where the run folder
    cannot be written, or is another's by now.
    """
    if owner is None:
        yield Silent()
        return
    with _one_line(config.run.dir):
        coordinator = Coordinator(
            config, owner, first_step=first_step, total_steps=total_steps, best=best, quiet=quiet
        )
        try:
            yield coordinator
        except BaseException as first:
            try:
                with _one_line(config.run.dir):
                    coordinator.close()
            except (ShardsError, UnsavedError) as error:
                if not isinstance(first, OSError | ShardsError | UnsavedError):  # which say the same
                    log.warning("%s", error)
            raise
        coordinator.close()


@contextmanager
def _one_line(url: str) -> Iterator[None]:
    """An error of the system at a file of the run folder `url` as one line."""
    try:
        with errors_told_once():
            yield
    except BrokenPipeError:  # of whoever read the output
        raise
    except OSError as error:
        raise UnsavedError(
            f"run.dir={url} cannot be written: {one_line(error)}; checkpoints are as they were; make room or "
            "give access, then start the same command again"
        ) from error


def fixed_noise(config: Config) -> Tensor:
    """The z of every sample grid of a run."""
    return draw_noise(
        config.run.sample_images,
        parse_net(config.model.net).z_size,
        kind=config.model.noise,
        seed=seed_for(config.train.seed, "samples"),
    )
