"""Under torchrun, ranks come and go and the run goes on; SIGTERM to torchrun stops it, saved."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from dcgan_dist.chaos.torchrun import ranks_of
from dcgan_dist.checkpoints import checkpoint
from tests.test_promises import losses, run, weights, words
from tests.waiting import lines, until

pytestmark = pytest.mark.slow

# Or a node that joins waits in vain for an address that torchrun (2.13) told in its first round only.
JOINING = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def torchrun(
    log: Path, arguments: list[str], *options: str, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen[bytes]]:
    """One agent, which stands for a node; what it and its ranks say is in `log`."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "dcgan_dist.train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment) as agent,
    ):
        try:
            yield agent
        finally:
            agent.terminate()
            try:
                agent.wait(45)
            except subprocess.TimeoutExpired:
                agent.kill()


def test_nodes_join_and_die_and_the_run_goes_on(rooms16: str, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "one.log"
    settings = ["--train.precision=float64", "--data.batch_images=128", "--train.steps=100000"]
    arguments = words(rooms16, out, *settings, "--run.checkpoint_steps=5")
    meeting = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    elastic = ("--nnodes=1:4", "--nproc-per-node=1", "--max-restarts=9", "--rdzv-backend=c10d", meeting)
    more = ("--monitor-interval=0.2", "--rdzv-conf=last_call_timeout=2", "--local-addr=127.0.0.1")
    with torchrun(log, arguments, *elastic, *more, variables=JOINING) as first:
        until(lambda: lines(out / "metrics.jsonl") >= 3)
        with torchrun(tmp_path / "two.log", arguments, *elastic, *more, variables=JOINING) as second:
            until(lambda: " on 2 ranks" in all_logs(tmp_path), seconds=120)
            joined = lines(out / "metrics.jsonl")
            until(lambda: lines(out / "metrics.jsonl") >= joined + 3)
            second.kill()
            until(lambda: all_logs(tmp_path).count(" on 1 ranks") == 1, seconds=120)
        alone = lines(out / "metrics.jsonl")
        until(lambda: lines(out / "metrics.jsonl") >= alone + 3)
        first.send_signal(signal.SIGTERM)
        first.wait(60)
    last = checkpoint.steps(str(out / "checkpoints"))[-1]
    assert f"stopped by SIGTERM and saved at step {last}" in log.read_text()
    assert lines(out / "metrics.jsonl") == last
    run(1, [*words(rooms16, tmp_path / "unbroken", *settings), f"--train.steps={min(last, 20)}"])
    for line, wanted in zip(losses(out), losses(tmp_path / "unbroken"), strict=False):
        assert line == pytest.approx(wanted, rel=1e-5)


def all_logs(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.glob("*.log"))


def test_ranks_leave_with_a_torchrun_that_is_killed(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = words(rooms16, out, "--train.steps=1000000")
    with torchrun(tmp_path / "log", arguments, "--nproc-per-node=2") as agent:
        until(lambda: lines(out / "metrics.jsonl") >= 3)
        agent.kill()
        agent.wait()
        until(lambda: not living(str(out)), seconds=30)
    last = checkpoint.steps(str(out / "checkpoints"))[-1]
    assert f"stopped by SIGTERM and saved at step {last}" in (tmp_path / "log").read_text()
    assert lines(out / "metrics.jsonl") == last


def test_ranks_that_were_being_born_leave_with_their_torchrun_too(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = words(rooms16, out, "--train.steps=1000000")
    with torchrun(tmp_path / "log", arguments, "--nproc-per-node=2") as agent:
        until(lambda: len(living(str(out))) == 3)
        agent.kill()  # they import torch for seconds yet
        agent.wait()
        until(lambda: not living(str(out)), seconds=60)
    assert not (out / "metrics.jsonl").exists()
    assert "stopped by SIGTERM before training began" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("victim", [0, 1])
def test_torchrun_starts_ranks_again_and_the_run_ends_as_the_unbroken_one(
    rooms16: str, tmp_path: Path, victim: int
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    arguments = words(rooms16, out, "--train.steps=400", "--run.checkpoint_steps=5")
    with torchrun(log, arguments, "--nproc-per-node=2", "--max-restarts=3") as agent:
        killed: set[int] = set()
        for life in range(2):
            until(lambda: lines(out / "metrics.jsonl") >= 10 * (life + 1))  # noqa: B023
            rank = ranks_of(agent.pid)[victim]
            assert rank not in killed
            killed.add(rank)
            os.kill(rank, signal.SIGKILL)
            until(lambda: ranks_of(agent.pid).get(victim, 0) not in {0, *killed})
        assert agent.wait(120) == 0
    run(2, words(rooms16, tmp_path / "unbroken", "--train.steps=400"))
    assert losses(out) == losses(tmp_path / "unbroken")
    expected, found = weights(tmp_path / "unbroken"), weights(out)
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    assert "frame #" not in log.read_text()


def living(word: str) -> list[str]:
    """Processes that have `word` on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word in (process / "cmdline").read_text():
                found.append(process.name)
        except OSError:
            continue
    return found
