"""A signal stops all ranks at one saved step; a second one and a lost rank end them in bounded time."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dcgan_dist.chaos.local_ranks import LocalRanks
from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.ranks import stopping
from dcgan_dist.ranks.local import environment, free_port
from dcgan_dist.ranks.lost import is_loss
from dcgan_dist.ranks.stopping import STOPPED, Signals, Stop
from dcgan_dist.train import main
from tests.processes import run_ranks
from tests.test_promises import losses, run, weights, words
from tests.waiting import lines, until

ENDLESS = "--train.steps=1000000"


def train_signalled(arguments: list[str], out: Path, victim: int, number: int) -> int:
    """`main`, while a thread of one rank sends that rank a signal after a few steps."""

    def strike() -> None:
        until(lambda: lines(out / "metrics.jsonl") >= 3)
        os.kill(os.getpid(), number)

    if int(os.environ["RANK"]) == victim:
        threading.Thread(target=strike, daemon=True).start()
    return main(arguments)


SELDOM = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGUSR1, signal.SIGUSR2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, *SELDOM])
def test_a_signal_to_one_rank_stops_all_at_one_step_and_the_run_goes_on(
    rooms16: str, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "run"
    victim = number % 2
    codes = run_ranks(train_signalled, 2, words(rooms16, out, ENDLESS), out, victim, number)
    assert codes == [STOPPED, STOPPED]
    (step,) = checkpoint.steps(str(out / "checkpoints"))
    assert lines(out / "metrics.jsonl") == step
    if number == signal.SIGTERM:
        more = f"--train.steps={step + 4}"
        run(2, words(rooms16, out, more))
        run(2, words(rooms16, tmp_path / "unbroken", more))
        expected, found = weights(tmp_path / "unbroken"), weights(out)
        assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
        assert losses(out) == losses(tmp_path / "unbroken")


def test_a_killed_rank_takes_the_others_down_and_is_named(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LocalRanks(words(rooms16, out, ENDLESS), 2) as ranks:
        until(lambda: lines(out / "metrics.jsonl") >= 3 or not ranks.running)
        ranks.signal(signal.SIGKILL, 1)
        assert ranks.wait(30) == [1, -signal.SIGKILL]
        told = [line for line in ranks.told(0).splitlines() if not line.startswith(("step ", "2 ranks"))]
    assert len(told) == 1
    assert told[0].startswith("error: rank 0: lost rank 1 without a word: killed")


def test_the_others_say_one_line_when_rank_0_is_killed(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LocalRanks(words(rooms16, out, ENDLESS), 4) as ranks:
        until(lambda: lines(out / "metrics.jsonl") >= 3 or not ranks.running)
        ranks.signal(signal.SIGKILL, 0)
        assert ranks.wait(30) == [-signal.SIGKILL, 1, 1, 1]
        for rank in (1, 2, 3):
            (line,) = ranks.told(rank).splitlines()
            assert line.startswith(f"error: rank {rank}: lost rank 0 without a word: killed")


@pytest.mark.parametrize("victim", [0, *(pytest.param(rank, marks=pytest.mark.slow) for rank in (1, 2))])
def test_a_stopped_process_is_named_and_the_others_leave_in_time(
    rooms16: str, tmp_path: Path, victim: int
) -> None:
    """Its connections stay open, and gloo waits for it as NCCL waits for a killed one."""
    out = tmp_path / "run"
    others = [rank for rank in range(3) if rank != victim]
    with LocalRanks(words(rooms16, out, ENDLESS, "--data.batch_images=15"), 3) as ranks:
        until(lambda: lines(out / "metrics.jsonl") >= 3 or not ranks.running)
        ranks.signal(signal.SIGSTOP, victim)
        began = time.monotonic()
        until(lambda: not any(ranks.processes[rank].is_alive() for rank in others), seconds=30)
        assert time.monotonic() - began < 15
        for rank in others:
            assert ranks.processes[rank].exitcode == 1
            line = ranks.told(rank).splitlines()[-1]
            assert line.startswith(f"error: rank {rank}: lost rank {victim} silent for 9 s: "), line
        ranks.signal(signal.SIGCONT, victim)
        assert ranks.wait(30)[victim] == 1
        assert "lost rank" in ranks.told(victim).splitlines()[-1]


def test_a_rank_whose_step_does_not_come_is_named(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    program = (
        "import os, sys, time\n"
        "from dcgan_dist.stream.feed import Feed\n"
        "take, taken = Feed.batch_unless, []\n"
        "def stuck(self, *more):\n"
        "    taken.append(1)\n"
        "    if os.environ['RANK'] == '1' and len(taken) == 4: time.sleep(120)\n"
        "    return take(self, *more)\n"
        "Feed.batch_unless = stuck\n"
        "from dcgan_dist.train import own_process\n"
        "raise SystemExit(own_process(sys.argv[1:]))\n"
    )
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words(rooms16, out, ENDLESS, "--train.timeout_seconds=5")],
            env=os.environ | environment(rank, 2, port=port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1]
    for rank in range(2):
        assert (
            f"error: rank {rank}: lost rank 1, which hangs: it has not begun step 3, as others have"
            in said[rank]
        )


@pytest.mark.slow
def test_a_rank_that_is_only_slow_is_not_lost(rooms16: str, tmp_path: Path) -> None:
    """One holds its interpreter's lock for six seconds, one is busy for longer than silence may last."""
    program = (
        "import ctypes, os, sys, time\n"
        "from dcgan_dist.ranks.heartbeat import SILENT_SECONDS\n"
        "from dcgan_dist.training.trainer import Trainer\n"
        "from dcgan_dist.train import own_process\n"
        "update = Trainer.update\n"
        "def slow(self, step, *real):\n"
        "    if step == 4 and self.here.rank == 1: ctypes.PyDLL(None).usleep(6_000_000)\n"
        "    if step == 6 and self.here.rank == 0: time.sleep(SILENT_SECONDS + 4)\n"
        "    update(self, step, *real)\n"
        "Trainer.update = slow\n"
        "raise SystemExit(own_process(sys.argv[1:]))\n"
    )
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words(rooms16, tmp_path / "run", "--train.steps=8")],
            env=os.environ | environment(rank, 2, port=port) | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=90)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert lines(tmp_path / "run" / "metrics.jsonl") == 8


def test_a_failing_ranks_message_comes_out_while_the_group_cannot_be_closed(
    rooms16: str, tmp_path: Path
) -> None:
    """NCCL's group may wait for other ranks for ever, and so may a writer's last upload for its storage."""
    program = (
        "import os, sys, time\n"
        "import torch.distributed as dist\n"
        "from dcgan_dist.ranks.world import leave\n"
        "from dcgan_dist.training.coordinator import Coordinator\n"
        "from dcgan_dist.training.trainer import Trainer\n"
        "from dcgan_dist.train import own_process\n"
        "dist.destroy_process_group = lambda: time.sleep(1000)\n"
        "update = Trainer.update\n"
        "def fail(self, step, *real):\n"
        "    if step == 5 and self.here.rank == 1: raise MemoryError('no more of it')\n"
        "    update(self, step, *real)\n"
        "Trainer.update = fail\n"
        "leave(own_process(sys.argv[1:]))\n"
    )
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words(rooms16, tmp_path / "run", ENDLESS)],
            env=os.environ | environment(rank, 2, port=port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ranks[1].wait(60)
    began = time.monotonic()
    said = [rank.communicate(timeout=30)[1] for rank in ranks]
    assert time.monotonic() - began < 15
    assert said[1].startswith("rank 1 failed:\nTraceback")
    assert said[1].count("MemoryError: no more of it") == 1
    assert "error: rank 0: lost rank 1, which said: no more of it" in said[0]
    assert [rank.returncode for rank in ranks] == [1, 1]


def test_a_stop_that_no_rank_can_have_written_is_not_believed() -> None:
    store = torch.distributed.HashStore()
    for said in ("1", "abc", "\x1b[2J", "9" * 40, "-3", "1000000", "5.0"):
        store.set(Stop.KEY, said)
        assert not Stop(Signals(), store, torch.device("cpu")).after(5)
        signals = Signals()
        signals.received = signal.SIGTERM
        stop = Stop(signals, store, torch.device("cpu"))
        assert [stop.after(done) for done in (5, 6, 7)] == [False, False, True]


def train_in_a_thread(arguments: list[str]) -> int:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(arguments)))
    thread.start()
    thread.join()
    return codes[0]


def test_training_in_a_thread_takes_no_signals(rooms16: str, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert train_in_a_thread(words(rooms16, tmp_path / "run", "--train.steps=2")) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def interrupt_twice(patient: bool) -> str:
    """What Ctrl-C does to a program that trains, as a notebook's does."""
    told = []
    try:
        with Signals(owns_process=False) as signals:
            signals.patient = patient
            signal.raise_signal(signal.SIGINT)
            told.append("goes on")
            signal.raise_signal(signal.SIGINT)  # of the same moment
            time.sleep(1.1)
            signal.raise_signal(signal.SIGINT)
            told.append("goes on")
    except KeyboardInterrupt:
        told.append("interrupted")
    return ", ".join(told)


def test_a_program_that_trains_keeps_its_process() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert interrupt_twice(patient=False) == "interrupted"
        assert interrupt_twice(patient=True) == "goes on, interrupted"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_on_one_process_stops_without_a_store(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LocalRanks(words(rooms16, out, ENDLESS), 1) as ranks:
        until(lambda: lines(out / "metrics.jsonl") >= 3 or not ranks.running)
        ranks.signal(signal.SIGTERM, 0)
        assert ranks.wait(30) == [STOPPED]
        assert "stopped by SIGTERM and saved at step" in ranks.told(0)


def wait_for_signals(*, patient: bool) -> subprocess.Popen[str]:
    text = (
        "import time; from dcgan_dist.ranks.stopping import Signals\n"
        f"with Signals() as signals:\n signals.patient = {patient}; print('ready', flush=True)\n"
        " while True: time.sleep(0.05)"
    )
    child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=-1, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_second_signal_leaves_at_once_but_not_one_of_the_same_moment() -> None:
    with wait_for_signals(patient=True) as child:
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGTERM)
        time.sleep(1.3)
        assert child.poll() is None
        child.send_signal(signal.SIGUSR1)
        told = child.communicate(timeout=10)[1]
    assert child.returncode == 128 + signal.SIGUSR1
    assert told == "a second signal, SIGUSR1: leaving at once, nothing more is saved\n"


def test_a_signal_before_training_leaves_at_once() -> None:
    with wait_for_signals(patient=False) as child:
        child.send_signal(signal.SIGINT)
        told = child.communicate(timeout=10)[1]
    assert child.returncode == STOPPED
    assert told == "stopped by SIGINT before training began\n"


def test_handlers_are_as_before_after_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_rank_stops_at_the_step_that_the_first_wrote() -> None:
    store = torch.distributed.HashStore()
    one, other = Signals(), Signals()
    device = torch.device("cpu")
    stops = [Stop(each, store, device) for each in (one, other)]
    one.received = signal.SIGTERM
    assert [stops[0].after(5), stops[1].after(5)] == [False, False]
    other.received = signal.SIGUSR1  # too late to say otherwise
    assert [[stop.after(done) for done in (6, 7)] for stop in stops] == [[False, True]] * 2


class Counting:
    """A store that counts how often it is asked."""

    def __init__(self) -> None:
        self.store, self.asked = torch.distributed.HashStore(), 0

    def __getattr__(self, name: str) -> Any:
        self.asked += 1
        return getattr(self.store, name)


@pytest.mark.parametrize("asking", range(16))
def test_ranks_with_gpus_look_seldom_and_stop_at_one_step(
    monkeypatch: pytest.MonkeyPatch, asking: int
) -> None:
    monkeypatch.setattr(stopping.Pace, "wait", lambda pace: None)
    store, device = Counting(), torch.device("cuda")
    one, other = Signals(), Signals()
    stops = [Stop(signals, store, device) for signals in (one, other)]  # type: ignore[arg-type]
    stopped: list[int | None] = [None, None]
    for done in range(1, 33):
        if done == asking:
            one.received = signal.SIGTERM
        for rank in (1, 0):  # the other is a step ahead of the word
            if stopped[rank] is None and stops[rank].after(done):
                stopped[rank] = done
        if done == asking - 1:
            assert store.asked == 2 * (done // stopping.GPU_LOOKS_STEPS)
    first = max(asking, 1) + stopping.AHEAD_STEPS
    if asking:
        assert stopped == [first + -first % stopping.GPU_LOOKS_STEPS] * 2
    else:
        assert stopped == [None, None]


def test_only_what_tells_of_lost_ranks_is_taken_for_it() -> None:
    assert is_loss(RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"))
    assert is_loss(torch.distributed.DistNetworkError("x"))
    assert not is_loss(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_loss(ValueError("connection closed"))
