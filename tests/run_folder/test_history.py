"""metrics.jsonl and the best checkpoint outlive kills, odd bytes and full disks; it is JSON throughout."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.writer import Writer
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.run_folder import owner
from dcgan_dist.run_folder.growing_files import Folder, History, parse
from dcgan_dist.scores.while_training import Scorer
from dcgan_dist.train import main
from shards.storage import store
from tests.test_bad_input import told
from tests.test_promises import losses, words
from tests.waiting import lines, until


def rows(run: Path) -> list[dict[str, Any]]:
    def never(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    return [
        json.loads(line, parse_constant=never) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]


def remote(rooms16: str, url: str, *more: str) -> list[str]:
    own = [word for word in words(rooms16, Path("x")) if not word.startswith("--run.dir")]
    return [*own, f"--run.dir={url}", *more]


def test_lines_that_are_no_metrics_are_left_out_with_a_warning(
    rooms16: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    assert main(words(rooms16, run, "--train.steps=4")) == 0
    path = run / "metrics.jsonl"
    good = path.read_bytes().splitlines()
    bad = [b'{"step": 2, "\xff": 1}', b"[]", b"7", b'{"a": 1}', b'{"step": "2"}', b"\0\0\0", b"[" * 99999]
    path.write_bytes(b"\n".join([good[0], *bad, *good[1:], b'{"step": 4, "loss/']))
    assert main(words(rooms16, run, "--train.steps=6")) == 0
    assert "7 lines are no metrics and left out, the first at line 2" in caplog.text
    assert [row["step"] for row in rows(run)] == [1, 2, 3, 4, 5, 6]
    assert rows(run)[0] == json.loads(good[0])


def test_what_json_has_no_number_for_is_null(tmp_path: Path) -> None:
    held = owner.take(str(tmp_path))
    history = History(Folder(str(tmp_path), held), 0)
    nan, inf = float("nan"), float("inf")
    history.write({"step": 1, "loss/d": nan, "ranks": {"a": [inf, 1.0]}, "protocol": {"b": -inf}})
    history.close()
    held.release()
    assert rows(tmp_path) == [
        {"step": 1, "loss/d": None, "ranks": {"a": [None, 1.0]}, "protocol": {"b": None}}
    ]
    assert next(parse(b'{"step": 1, "loss/d": NaN}\n', "x"))["step"] == 1


def test_a_resume_writes_metrics_beside_and_follows_no_link(rooms16: str, tmp_path: Path) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine"
    assert main(words(rooms16, run, "--train.steps=2")) == 0
    mine.write_bytes((run / "metrics.jsonl").read_bytes())
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(mine)
    assert main(words(rooms16, run, "--train.steps=4")) == 0
    assert lines(mine) == 2
    assert len(losses(run)) == 4


def test_the_diversity_of_samples_is_told_with_the_metrics(rooms16: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = words(rooms16, run, "--train.steps=9", "--run.log_steps=2", "--run.sample_steps=3")
    assert main(arguments) == 0
    found = {row["step"]: row["samples/diversity"] for row in rows(run) if "samples/diversity" in row}
    assert found.keys() == {3, 6, 9}
    assert [row["step"] for row in rows(run)] == [2, 3, 4, 6, 8, 9]
    assert all(value > 0 for value in found.values())


def test_a_remote_run_folder_has_every_line_before_the_manifest(
    rooms16: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{tmp_path.name}/run"
    write, seen = checkpoint.write, []

    def look_first(folder: str, step: int, *more: Any) -> None:
        found = [row["step"] for row in parse(store.read_bytes(f"{url}/metrics.jsonl"), url)]
        seen.append((step, found[:step]))
        write(folder, step, *more)

    monkeypatch.setattr(checkpoint, "write", look_first)
    more = ["--run.checkpoint_steps=3", "--run.sample_steps=100", "--train.steps=9"]
    assert main(remote(rooms16, url, *more)) == 0
    assert seen[-1][0] == 9
    assert all(found == list(range(1, step + 1)) for step, found in seen)


@pytest.mark.parametrize("storage", ["local", "memory"])
def test_the_best_checkpoint_is_known_without_metrics(
    rooms16: str, tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "run") if storage == "local" else f"memory://{tmp_path.name}/best"
    monkeypatch.setattr(
        Scorer, "scores", lambda self, step, g: {"swd": {4: 1.0}.get(step, 10.0 - step / 100)}
    )
    monkeypatch.setattr(Writer, "save", lambda self, step, write: write())  # none is overtaken by the next
    every = ["--eval.steps=2", "--eval.images=16", "--run.checkpoint_steps=2", "--run.checkpoints_kept=1"]
    arguments = remote(rooms16, url, *every, "--run.checkpoint_best=swd")
    for steps in (8, 12, 16):
        assert main([*arguments, f"--train.steps={steps}"]) == 0
        assert checkpoint.steps(f"{url}/checkpoints") == [4, steps]
        facts = checkpoint.read_manifest(f"{url}/checkpoints", steps).facts
        assert facts["best"] == {"step": 4, "eval/swd": 1.0}
        store.remove(f"{url}/metrics.jsonl")  # as a kill may leave it


def test_a_life_that_saved_nothing_is_not_in_the_curves_of_the_next(rooms16: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(words(rooms16, run, "--train.steps=9", "--run.log_steps=3")) == 0
    shutil.rmtree(run / "checkpoints")
    (run / "run.json").unlink()
    (run / "metrics.jsonl").unlink()  # all that tells of it, but for TensorBoard's files
    assert main(words(rooms16, run, "--train.steps=5")) == 0
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("speed/step_seconds")] == [1, 2, 3, 4, 5]


@pytest.fixture
def disk(tmp_path: Path) -> Any:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


def while_training(run: Path, strike: Any) -> threading.Thread:
    def wait() -> None:
        until(lambda: lines(run / "metrics.jsonl") >= 3)
        strike()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(256))
            except OSError:
                return


def test_a_disk_that_fills_up_under_the_curves_is_one_line(
    rooms16: str, tmp_path: Path, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = disk / "run"
    thread = while_training(run, lambda: fill(disk))
    assert main(words(rooms16, run, "--train.steps=1000000")) == 2
    thread.join()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: run.dir={run} cannot be written: No space left on device")
    (disk / "filler").unlink()
    assert main(words(rooms16, run, "--train.steps=3")) == 0
    assert [row["step"] for row in rows(run)] == [1, 2, 3]


@pytest.mark.parametrize("more", [[], ["--run.sample_steps=7"], ["--run.checkpoint_steps=7"]])
def test_a_run_folder_removed_under_way_is_one_line(
    rooms16: str,
    tmp_path: Path,
    more: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.3)
    run = tmp_path / "run"
    thread = while_training(run, lambda: run.rename(tmp_path / "gone"))
    assert main(words(rooms16, run, "--train.steps=1000000", *more)) == 2
    thread.join()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert str(run) in line
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.parametrize("files", [8, 10])
def test_few_file_descriptors_are_no_traceback(rooms16: str, tmp_path: Path, files: int) -> None:
    train = [sys.executable, "-m", "dcgan_dist.train", *words(rooms16, tmp_path / "run", "--train.steps=3")]
    limited = f"ulimit -n {files}; exec {shlex.join(train)}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "Too many open files" in done.stderr


def test_a_scorer_that_is_refused_leaves_no_thread(
    rooms16: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Scorer, *given: object) -> None:
        raise ConfigError("eval.inception is not the file that it should be")

    monkeypatch.setattr(Scorer, "__init__", refuse)
    before = set(threading.enumerate())
    arguments = remote(rooms16, f"memory://{tmp_path.name}", "--eval.steps=2", "--eval.images=16")
    for data in (rooms16, copy_to_memory(rooms16)):
        assert main([*arguments, f"--data.url={data}"]) == 2
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name != "fsspecIO"] == []


def copy_to_memory(url: str) -> str:
    """The same dataset on storage that is read ahead."""
    for name in store.sizes(url):
        store.write_bytes(f"memory://history-rooms/{name}", store.read_bytes(f"{url}/{name}"))
    return "memory://history-rooms"


def test_a_run_folder_whose_metrics_are_a_folder(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    assert "metrics.jsonl" in told(capsys, words(rooms16, tmp_path / "run"))
