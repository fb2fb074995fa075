"""How ranks find each other: with a launcher that says too little, at a store that is older than they are,
and only if they were given the same."""

import contextlib
import io
import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks import world
from dcgan_dist.ranks.lifeline import Lifeline, listen
from dcgan_dist.ranks.rendezvous import Met, NotMetError, Place, differences, meet
from dcgan_dist.train import main
from tests.processes import run_ranks
from tests.test_promises import words

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ONE = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: dict[str, str], *more: str
) -> tuple[int, str]:
    """Exit code and the one line that training says where a launcher set these variables."""
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = main([*more, "--train.timeout_seconds=1"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return code, lines[0]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({**ONE, "RANK": "x"}, "RANK=x is not a whole number; torchrun and launch/slurm.py set RANK"),
        ({**ONE, "RANK": "-1"}, "RANK=-1 is not a whole number"),
        ({**ONE, "RANK": "\x1b[31m1"}, r"RANK=\x1b[31m1 is not a whole number"),
        ({**ONE, "RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 must be less than WORLD_SIZE=2"),
        ({**ONE, "WORLD_SIZE": "two"}, "WORLD_SIZE=two is not a whole number"),
        ({"RANK": "1"}, "WORLD_SIZE is not set; torchrun"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but RANK is not set"),
        ({**ONE, "MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({**ONE, "MASTER_PORT": "70000"}, "MASTER_PORT=70000 is no port"),
        ({**ONE, "MASTER_PORT": ""}, "MASTER_PORT= is not a whole number"),
        (
            {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"},
            "srun started 8 processes, but RANK",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_ID": "1"},
            "srun started 2 processes",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, "mpirun started 4 processes"),
        ({"PMI_SIZE": "4", "PMI_RANK": "0"}, "use torchrun --nproc-per-node N"),
    ],
)
def test_a_launcher_that_makes_no_sense_is_one_line(
    rooms16: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    line: str,
) -> None:
    code, found = told(monkeypatch, capsys, variables, *words(rooms16, tmp_path / "run"))
    assert code == 2
    assert line in found
    assert not (tmp_path / "run").exists()


def test_only_the_first_of_many_tasks_tells_that_they_know_nothing_of_each_other(
    rooms16: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SLURM_PROCID": "5", "SLURM_LOCALID": "5", "SLURM_NTASKS": "8"}.items():
        monkeypatch.setenv(name, value)
    assert main(words(rooms16, tmp_path / "run")) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"},  # the shell of salloc
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # a batch script
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967290"},  # salloc on a node
        {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_ID": "3"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    ],
)
def test_one_process_of_a_larger_job_is_one_rank(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with world.join(device="cpu", timeout_seconds=1) as here:
        assert (here.rank, here.ranks) == (0, 1)


def test_what_is_in_the_way_of_a_meeting_is_one_line(
    rooms16: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = words(rooms16, tmp_path / "run")
    with listen("127.0.0.1", 0, local=True) as taken:
        port = str(taken.getsockname()[1])
        code, line = told(monkeypatch, capsys, {**ONE, "MASTER_PORT": port}, *more)
        assert (code, "cannot listen at 127.0.0.1:" in line) == (1, True), line
        assert "choose another MASTER_PORT" in line
    two = {**ONE, "WORLD_SIZE": "2", "MASTER_PORT": port}
    code, line = told(monkeypatch, capsys, two, *more)
    assert (code, f"rank 1 did not come to 127.0.0.1:{port} within 1 s" in line) == (1, True), line
    code, line = told(monkeypatch, capsys, {**two, "RANK": "1"}, *more)
    assert (code, f"rank 0 cannot be reached at 127.0.0.1:{port}: " in line) == (1, True), line
    monkeypatch.setattr("dcgan_dist.ranks.lifeline.GREETING_SECONDS", 0.1)
    code, line = told(monkeypatch, capsys, {**two, "RANK": "1", "MASTER_ADDR": "no.invalid"}, *more)
    assert (code, "MASTER_ADDR=no.invalid cannot be resolved" in line) == (1, True), line


def hang_up(*found: Met) -> None:
    for met in found:
        for line in met.lines.values():
            line.close()


def attempt(port: int, ranks: int, facts: Callable[[int], dict[str, str]] = lambda rank: {}) -> list[Met]:
    """All ranks meet at a store that torchrun keeps at `port`."""

    def one(rank: int) -> Met:
        place = Place(rank=rank, ranks=ranks, host="127.0.0.1", port=port, local=True, agent=True)
        return meet(place, facts(rank), seconds=20)

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(one, range(ranks)))


@pytest.fixture
def kept() -> Any:
    """A store as torchrun keeps it over all its restarts."""
    return dist.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20)
    )


def test_a_new_attempt_sees_no_word_of_earlier_ones(kept: Any) -> None:
    earlier = attempt(kept.port, 3)
    earlier[0].store.set("found", "lost rank 1")
    assert all(met.store.check(["found"]) for met in earlier)
    # A rank that died before it was answered, and one that another number of ranks does not have.
    kept.set("dcgan_dist/hello/1", "0" * 32)
    kept.set("dcgan_dist/hello/9", "1" * 32)
    later = attempt(kept.port, 2)
    assert not any(met.store.check(["found"]) for met in later)
    later[1].store.set("here", "now")
    assert later[0].store.get("here") == b"now"
    assert not earlier[0].store.check(["here"])
    hang_up(*earlier, *later)


def test_a_rank_that_comes_again_takes_the_place_of_the_one_that_died(kept: Any) -> None:
    place = {"ranks": 3, "host": "127.0.0.1", "port": kept.port, "local": True, "agent": True}
    with ThreadPoolExecutor(1) as pool:
        host = pool.submit(meet, Place(rank=0, **place), {}, seconds=20)
        with pytest.raises(NotMetError):  # for rank 2 is not there yet
            meet(Place(rank=1, **place), {}, seconds=0.5)
        with ThreadPoolExecutor(2) as others:
            found = list(others.map(lambda rank: meet(Place(rank=rank, **place), {}, seconds=20), (1, 2)))
        assert sorted(host.result().lines) == [1, 2]
    found[1].store.set("a", "b")
    assert host.result().store.get("a") == b"b"
    hang_up(*found, host.result())


def test_whoever_does_not_know_the_nonce_is_no_rank(kept: Any) -> None:
    place = {"ranks": 2, "host": "127.0.0.1", "port": kept.port, "local": True, "agent": True}
    with ThreadPoolExecutor(1) as pool:
        host = pool.submit(meet, Place(rank=0, **place), {}, seconds=20)
        kept.set("dcgan_dist/hello/1", "a" * 32)
        kept.wait([f"dcgan_dist/answer/{'a' * 32}"])
        line_at = json.loads(kept.get(f"dcgan_dist/answer/{'a' * 32}"))["line"]
        stranger = Lifeline(socket.create_connection(tuple(line_at)))
        stranger.send(nonce="guessed", rank=1, facts={})
        with pytest.raises(EOFError):
            stranger.read()
        noise = socket.create_connection(tuple(line_at))
        noise.sendall(b"\x80\x04\x95 GET / HTTP/1.1\n\n[1]\n")
        late = meet(Place(rank=1, **place), {}, seconds=20)
        assert sorted(host.result().lines) == [1]
    hang_up(late, host.result())
    noise.close()
    stranger.close()


def test_ranks_that_were_given_other_things_are_named_with_what_differs() -> None:
    own = {"train.seed": "42", "optim.lr": "0.1", "dataset": "a", "x": "1"}
    assert differences(own, {1: own, 2: own}) == ""
    assert (
        differences(own, {1: {**own, "train.seed": "7"}, 2: own, 3: {**own, "train.seed": "7"}})
        == "ranks 1, 3 and rank 0 were given another train.seed (7, not 42); give all ranks the same"
    )
    line = differences(own, {1: {}})
    assert "dataset (None, not a), optim.lr (None, not 0.1), train.seed (None, not 42) and 1 more" in line
    assert "\x1b" not in differences(own, {1: {**own, "dataset": "\x1b[2J"}})


def test_all_ranks_refuse_when_one_differs(kept: Any) -> None:
    with pytest.raises(ConfigError, match=r"rank 1 and rank 0 were given another seed \(1, not 0\)"):
        attempt(kept.port, 2, lambda rank: {"seed": str(rank)})


def train_apart(arguments: list[list[str]]) -> tuple[int, str]:
    """Each rank with arguments of its own; the exit code and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(arguments[int(os.environ["RANK"])])
    return code, said.getvalue()


def test_a_run_does_not_start_where_ranks_have_other_settings(rooms16: str, tmp_path: Path) -> None:
    one, other = (words(rooms16, tmp_path / "run", f"--model.norm_eps={eps}") for eps in (1e-8, 1e-5))
    (code, line), second = run_ranks(train_apart, 2, [one, other])
    assert code == 2
    different = "model.norm_eps (1e-05, not 1e-08)"
    assert line == f"error: rank 1 and rank 0 were given another {different}; give all ranks the same\n"
    assert second == (2, "")
    assert not (tmp_path / "run").exists()


def test_what_is_a_ranks_own_may_differ(rooms16: str, tmp_path: Path) -> None:
    one, other = (words(rooms16, tmp_path / "run", f"--data.threads={n}", "--train.steps=2") for n in (1, 2))
    assert [code for code, _ in run_ranks(train_apart, 2, [one, other])] == [0, 0]
