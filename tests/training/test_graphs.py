"""Updates that are recorded and replayed: on a CPU by a stand-in that does the recorded work again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.rules import check
from dcgan_dist.config.settings import read_config
from dcgan_dist.gan.step import Player
from dcgan_dist.ranks.world import join
from dcgan_dist.train import main
from dcgan_dist.training import graphs, ordered_sum, players
from dcgan_dist.training.graphs import Graphs, Inputs, ReplayError, StaleInputError
from tests.processes import run_ranks
from tests.test_promises import losses, weights, words


def replaying(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """As a CUDA graph: at every replay the answers lie where they lay at the first.

    A graph computes nothing while it is recorded. This does, to learn the answers' shapes; who calls it puts
    back what changed.
    """
    answers = tree_map(lambda value: torch.empty_like(value.detach()), work())

    def replay() -> None:
        tree_map(lambda into, value: into.copy_(value), answers, work())

    return replay, answers


class Counter:
    """An update that adds the batch and the noise to its only weight."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...] = (2, 4, 4, 3)) -> None:
        monkeypatch.setattr(graphs, "cuda_graph", self.record)
        self.inputs = Inputs(shape, torch.device("cpu"))
        self.weight, self.hidden = torch.zeros(1, dtype=torch.int64), 0
        self.graphs = Graphs(
            self.inputs, self.work, state=lambda: {"weight": self.weight}, prints=lambda: self.weight.clone()
        )

    def record(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        kept = self.weight.clone()
        recorded = replaying(work)
        self.weight.copy_(kept)
        return recorded

    def work(self, shown: object) -> Tensor:
        self.hidden += 1
        self.weight += self.inputs.batch.sum() + self.inputs.key if shown else self.inputs.key
        return self.weight.clone()


def pixels(value: int) -> Any:
    return np.full((2, 4, 4, 3), value, np.uint8)


def test_each_step_reads_what_it_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Counter(monkeypatch)
    expected = 0
    for step in range(12):
        shown = step % 2 == 0
        found = it.graphs.update(shown, step, step, pixels(step) if shown else None)
        expected += step * 96 + step if shown else step
        assert int(found) == int(it.weight) == expected
    it.inputs.check_all()


@pytest.mark.parametrize("what", ["batch", "key"])
def test_a_graph_that_reads_something_else_is_told_of(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    it = Counter(monkeypatch)
    it.graphs.update(True, 0, 7, pixels(1))
    replay, found = it.graphs._recorded[True]

    def stale() -> None:
        getattr(it.inputs, what).add_(1)
        replay()

    it.graphs._recorded[True] = stale, found
    it.graphs.update(True, 1, 8, pixels(2))
    it.graphs._recorded[True] = replay, found
    for step in range(2, 1 + graphs.AHEAD_STEPS):
        it.graphs.update(True, step, 9, pixels(3))
    with pytest.raises(StaleInputError, match=r"^step 1: the graph has read other pictures or noise"):
        it.graphs.update(True, 4, 9, pixels(3))
    it.graphs._recorded[True] = stale, found
    it.graphs.update(True, 9, 9, pixels(3))
    with pytest.raises(StaleInputError, match=r"^step 9"):
        it.inputs.check_all()


def test_a_sum_is_of_every_pixel_whatever_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((2, 4, 4, 3), (1, 5, 5, 3)):
        inputs = Inputs(shape, torch.device("cpu"))
        inputs.feed(0, 5, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        inputs.hear(inputs.read(batch=True))
        inputs.check_all()


def test_replays_that_differ_from_updates_done_as_ever_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Counter(monkeypatch)

    def forgetful(shown: object) -> Tensor:
        it.hidden += 1
        it.weight += it.hidden  # something on the host, which a graph would not see change
        return it.weight.clone()

    monkeypatch.setattr(it.graphs, "_work", forgetful)
    with pytest.raises(ReplayError, match=r"differ from two done as ever; set train.graphs=false"):
        it.graphs.update(True, 0, 0, pixels(1))
    assert int(it.weight) == 0


def player_without_a_card(net: Any, optim: Any, scaler: Any, world: Any) -> Player[Any]:
    return Player(bare=net, parallel=net, helping=net, optim=optim, scaler=scaler)


@pytest.mark.parametrize("rule", ["both", "alternate"])
def test_a_replayed_run_has_the_bits_of_the_eager_one(
    rooms16: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    state: list[Any] = []

    def record(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        kept = [{name: value.clone() for name, value in it().items()} for it in state]
        recorded = replaying(work)
        for it, before in zip(state, kept, strict=True):
            for name, value in it().items():
                value.detach().copy_(before[name])
        return recorded

    start = Graphs.__init__

    def noting(self: Any, *args: Any, **more: Any) -> None:
        state.append(more["state"])
        start(self, *args, **more)

    monkeypatch.setattr(Graphs, "__init__", noting)
    monkeypatch.setattr(graphs, "cuda_graph", torch.no_grad()(record))
    monkeypatch.setattr(players, "graphed", player_without_a_card)
    more = [f"--train.update_rule={rule}", "--train.ema_decay=0.9", "--train.steps=9"]
    for out, graphed in (("eager", "false"), ("replayed", "true")):
        assert main(words(rooms16, tmp_path / out, *more, f"--train.graphs={graphed}")) == 0
        state.clear()
    assert main(words(rooms16, tmp_path / "broken", *more, "--train.graphs=true", "--train.steps=4")) == 0
    state.clear()
    assert main(words(rooms16, tmp_path / "broken", *more, "--train.graphs=true")) == 0
    expected = weights(tmp_path / "eager")
    for out in ("replayed", "broken"):
        found = weights(tmp_path / out)
        assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
        assert losses(tmp_path / out) == losses(tmp_path / "eager")


def mean_by_rank() -> Tensor:
    with world_of_two() as here:
        assert here.group is not None
        net = torch.nn.Linear(3, 2)
        for weight in net.parameters():
            weight.grad = torch.full_like(weight, float(here.rank * 2 + 1))
        ordered_sum.mean_of_gradients(net, here.group)
        return torch.cat([weight.grad.reshape(-1) for weight in net.parameters() if weight.grad is not None])


def world_of_two() -> Any:
    return join(device="cpu", timeout_seconds=60)


def test_without_ddp_gradients_are_the_mean_of_all_ranks() -> None:
    for found in run_ranks(mean_by_rank, 2):
        assert torch.equal(found, torch.full((8,), 2.0))


def test_where_nothing_can_be_recorded_one_line_says_so(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(rooms16, tmp_path / "run", "--train.graphs=true")) == 2
    assert capsys.readouterr().err == (
        "error: train.graphs=true needs a CUDA GPU, and this run is on a CPU; set it to false\n"
    )
    config = read_config(["--train.graphs=true", "--train.compile=true"], "test")
    with pytest.raises(ConfigError, match=r"train\.graphs and train\.compile exclude each other"):
        check(config, ranks=1)
