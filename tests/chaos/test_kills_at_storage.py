"""A run that dies at any rename or removal, of itself or of its resume, ends where the unbroken one does."""

import itertools
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from dcgan_dist.chaos.ends import differences
from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.writer import Writer
from dcgan_dist.train import main
from tests.processes import _context
from tests.test_promises import losses, words

STEPS = 8


def arguments(data: str, run: Path) -> list[str]:
    more = ["--run.checkpoint_steps=2", "--run.checkpoints_kept=1", f"--train.steps={STEPS}"]
    return words(data, run, *more, "--run.sample_steps=4")


def live(given: list[str], touches: tuple[str, ...], deadly: int) -> None:
    """Train until the `deadly`th of these calls, and die before it."""
    torch.set_num_threads(1)
    Writer.save = lambda self, step, write: write()  # type: ignore[method-assign]  # the same calls each time
    count = itertools.count(1)

    def deadly_one(real: Any) -> Any:
        def touch(*args: Any, **options: Any) -> Any:
            if next(count) == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return touch

    for name in touches:
        setattr(Path, name, deadly_one(getattr(Path, name)))
    os._exit(main(given))


def killed(given: list[str], deadly: int, *touches: str) -> bool:
    """Whether that life was killed; otherwise it ended well."""
    life = _context.Process(target=live, args=(given, touches, deadly), daemon=True)
    life.start()
    life.join(120)
    assert life.exitcode in (0, -signal.SIGKILL)
    return life.exitcode != 0


@pytest.fixture(scope="module")
def unbroken(rooms16: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    assert not killed(arguments(rooms16, run), 0)
    return run


def check(run: Path, unbroken: Path) -> None:
    assert list(differences(unbroken, run, exact=True)) == []
    assert [line["step"] for line in losses(run)] == list(range(1, STEPS + 1))
    # What the very last prune left when it was killed stays until there is another checkpoint.
    assert checkpoint.steps(str(run / "checkpoints"))[-1] == STEPS


def break_at(rooms16: str, run: Path, unbroken: Path, *deaths: int, touches: tuple[str, ...]) -> bool:
    """Kill one life after another, let the next end, and compare; whether the last was killed indeed."""
    shutil.rmtree(run, ignore_errors=True)
    given = arguments(rooms16, run)
    whether = [killed(given, deadly, *touches) for deadly in deaths]
    assert all(whether[:-1])
    if whether[-1]:
        assert not killed(given, 0)
    check(run, unbroken)
    return whether[-1]


def test_kills_inside_a_prune_and_during_the_resumes_after_it(
    rooms16: str, tmp_path: Path, unbroken: Path
) -> None:
    # The third removal of the first prune; then, as it resumes, config.yaml and metrics.jsonl.
    assert break_at(rooms16, tmp_path / "run", unbroken, 22, 2, 3, touches=("replace", "unlink"))


@pytest.mark.slow
def test_a_kill_at_every_removal_of_a_prune(rooms16: str, tmp_path: Path, unbroken: Path) -> None:
    for deadly in itertools.count(1):
        if not break_at(rooms16, tmp_path / "run", unbroken, deadly, touches=("unlink",)):
            break
    assert deadly > 15


@pytest.mark.long
def test_a_kill_at_every_rename_and_removal_of_a_run_and_of_its_resume(
    rooms16: str, tmp_path: Path, unbroken: Path
) -> None:
    touches = ("replace", "unlink")
    for deadly in itertools.count(1):
        if not break_at(rooms16, tmp_path / "run", unbroken, deadly, touches=touches):
            break
    assert deadly > 40
    for second in range(1, 16):
        break_at(rooms16, tmp_path / "run", unbroken, 31, second, touches=touches)
