"""A process that is killed as it writes a checkpoint leaves the ones before, and no wrong one."""

import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from dcgan_dist.checkpoints import checkpoint
from shards.storage import store
from tests.processes import _context


def parts(step: int) -> checkpoint.Parts:
    """The content of `step`, told from that of every other; 1 MB in four parts."""
    return {name: {"w": torch.full((65536,), float(step))} for name in ("g", "d", "g_optim", "d_optim")}


def write_for_ever(folder: str, first: int, environment: dict[str, str], begun: Connection) -> None:
    os.setsid()
    torch.set_num_threads(1)
    os.environ |= environment
    for step in range(first, first + 10**6):
        checkpoint.write(folder, step, parts(step), {})
        checkpoint.prune(folder, keep=2)
        if step == first:
            begun.send(True)


def newest(folder: str) -> int:
    """The step of the newest whole checkpoint, whose content is that step's; 0 where there is none."""
    found = checkpoint.read_newest(folder)
    if found is None:
        return 0
    manifest, tensors = found
    assert set(tensors) == {"g", "d", "g_optim", "d_optim"}
    assert all(bool((each["w"] == manifest.step).all()) for each in tensors.values())
    return manifest.step


def kill_writers(folder: str, kills: int, *, longest_seconds: float) -> list[int]:
    """The newest step after each kill of a whole process group at a random moment."""
    dice = random.Random(0)
    found = [0]
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for _ in range(kills):
        begun, end = _context.Pipe(duplex=False)
        args = (folder, found[-1] + 1, environment, end)
        writer = _context.Process(target=write_for_ever, args=args, daemon=True)
        writer.start()
        assert begun.poll(60)
        assert writer.pid is not None
        time.sleep(dice.uniform(0, longest_seconds))
        os.killpg(writer.pid, signal.SIGKILL)
        writer.join()
        found.append(newest(folder))
        assert found[-1] > found[-2]
    return found


def test_a_kill_while_writing_leaves_the_newest_whole_one(tmp_path: Path) -> None:
    assert kill_writers(str(tmp_path), 5, longest_seconds=0.3)[-1] >= 5


@pytest.mark.long
def test_fifty_kills_while_writing_leave_the_newest_whole_one(tmp_path: Path) -> None:
    found = kill_writers(str(tmp_path), 50, longest_seconds=0.3)
    assert found[-1] >= 50
    # Of each name at most one file was under way when it was killed, and later ones cleared it away.
    assert len(store.sizes(str(tmp_path))) <= 3 * 6


@pytest.mark.long
@pytest.mark.s3
def test_fifty_kills_while_writing_to_an_object_store_leave_the_newest_whole_one(s3_folder: str) -> None:
    assert kill_writers(f"{s3_folder}/checkpoints", 50, longest_seconds=0.5)[-1] >= 50
