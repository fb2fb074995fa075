"""A run folder has one owner at a time: a second run is refused, and one that is gone holds nothing."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dcgan_dist.chaos.local_ranks import LocalRanks
from dcgan_dist.checkpoints.writer import UnsavedError
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.run_folder import owner
from dcgan_dist.run_folder.owner import Owner, State, take
from dcgan_dist.train import main
from shards.storage import store
from tests.processes import run_ranks
from tests.test_bad_input import told
from tests.test_promises import losses, run, words
from tests.waiting import lines, until


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(owner, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(owner, "SETTLE_SECONDS", 0.1)


def of_elsewhere(url: str, **changes: object) -> State:
    """What a live run on another machine would have written there."""
    store.make_folder(url)
    myself = owner._myself(url)
    state = State(replace(myself, **{"token": "t", "host": "node7", "boot": "b", "pid": 77, **changes}), 5, 0)
    owner._write(url, state)
    return state


def read(url: str) -> State:
    found = owner._read(url)
    assert found is not None
    return found


def test_the_same_command_twice_is_refused_on_all_ranks_and_names_the_first(
    rooms16: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with LocalRanks(words(rooms16, out, "--train.steps=1000000"), 1) as first:
        until(lambda: lines(out / "metrics.jsonl") >= 3 or not first.running)
        with LocalRanks(words(rooms16, out, "--train.steps=1000000"), 2) as second:
            assert second.wait(60) == [2, 2]
            assert second.told(1) == ""
            (line,) = second.told(0).splitlines()
        assert f"run.dir={out} is in use by process {first.processes[0].pid} on " in line
        assert "choose another run.dir" in line
        first.signal(signal.SIGTERM, 0)
        assert first.wait(60) == [75]
    steps = [line["step"] for line in losses(out)]
    assert steps == sorted(set(steps))
    assert main(words(rooms16, out, f"--train.steps={steps[-1] + 2}")) == 0


def test_of_many_that_start_at_once_one_stays(tmp_path: Path, quick: None) -> None:
    for url in (str(tmp_path / "run"), f"memory://{tmp_path.name}/run"):
        found: list[Owner | str] = []

        def start(url: str = url, found: list[Owner | str] = found) -> None:
            try:
                found.append(take(url))
            except ConfigError as error:
                found.append(str(error))

        threads = [threading.Thread(target=start) for _ in range(6 if store.is_local(url) else 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (stays,) = [each for each in found if isinstance(each, Owner)]
        assert all(f"in use by process {os.getpid()}" in each for each in found if isinstance(each, str))
        stays.release()
        assert read(url).owner is None


def test_where_nothing_locks_the_one_that_reads_itself_stays(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "run")
    monkeypatch.setattr(owner, "_locked", lambda folder: False)
    monkeypatch.setattr(owner, "SETTLE_SECONDS", 0.5)
    late = threading.Timer(0.2, of_elsewhere, [url])
    late.start()
    with pytest.raises(ConfigError, match="in use by process 77 on node7"):
        take(url)
    late.join()


def test_an_owner_that_was_killed_is_taken_over_at_once(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LocalRanks(words(rooms16, out, "--train.steps=1000000"), 1) as first:
        until(lambda: lines(out / "metrics.jsonl") >= 3 or not first.running)
        first.signal(signal.SIGKILL, 0)
        first.wait(60)
    assert read(str(out)).owner is not None
    began = time.monotonic()
    take(str(out)).release()
    assert time.monotonic() - began < owner.STALE_SECONDS / 2


def test_another_machine_is_waited_for_and_the_wait_is_told(
    tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    for url in (str(tmp_path / "run"), f"memory://{tmp_path.name}/other"):
        of_elsewhere(url)
        mine = take(url)
        assert "is held by process 77 on node7 since" in caplog.text
        assert "taken over after 1 s without a sign of life" in caplog.text
        mine.release()


def test_another_machine_that_shows_a_sign_of_life_keeps_its_run(tmp_path: Path, quick: None) -> None:
    url = str(tmp_path / "run")
    state = of_elsewhere(url)
    beat = threading.Timer(0.3, lambda: owner._write(url, replace(state, beat=6)))
    beat.start()
    with pytest.raises(ConfigError, match="in use by process 77 on node7"):
        take(url)
    beat.join()


def test_a_requeued_slurm_job_takes_its_own_folder_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = str(tmp_path / "run")
    of_elsewhere(url, slurm_job="12", slurm_restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    take(url).release()
    assert "taken over from process 77 of Slurm job 12 on node7" in caplog.text


def test_a_number_that_another_process_has_by_now_holds_nothing(tmp_path: Path) -> None:
    url = str(tmp_path / "run")
    store.make_folder(url)
    myself = owner._myself(url)
    owner._write(url, State(replace(myself, pid=os.getppid(), started="1")))
    take(url).release()
    owner._write(url, State(replace(myself, token="of a run of this process that ended")))
    take(url).release()


def test_a_copy_of_a_folder_in_use_is_another_folder(tmp_path: Path, quick: None) -> None:
    mine = take(str(tmp_path / "run"))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "run.json").write_bytes((tmp_path / "run" / "run.json").read_bytes())
    take(str(tmp_path / "copy")).release()
    mine.check()
    mine.release()


@pytest.mark.parametrize("text", ["", "[]", '{"owner": {}}', '{"owner": {"host": "\x1b[2J"}}', "[" * 9999])
def test_a_file_that_is_none_of_ours_is_waited_for_and_replaced(
    tmp_path: Path, quick: None, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run.json").write_text(text)
    take(str(tmp_path)).release()
    assert "run.json is not of its form" in caplog.text
    assert "\x1b" not in caplog.text


def test_who_was_taken_over_writes_nothing_more_and_says_so(tmp_path: Path, quick: None) -> None:
    url = str(tmp_path / "run")
    mine = take(url)
    mine.note_saved(4)
    other = of_elsewhere(url)
    with pytest.raises(UnsavedError, match="was taken over by process 77 on node7"):
        mine.check()
    with pytest.raises(UnsavedError):
        mine.note_saved(9)
    mine.release()
    assert read(url) == other


def test_a_run_that_was_taken_over_ends_in_one_line(
    rooms16: str, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    def strike() -> None:
        until(lambda: lines(out / "metrics.jsonl") >= 3)
        with owner._alone(str(out)):  # as whoever takes over does; else a sign of life may be written over it
            of_elsewhere(str(out))

    thread = threading.Thread(target=strike)
    thread.start()
    line = told(capsys, words(rooms16, out, "--train.steps=1000000"))
    thread.join()
    assert "was taken over by process 77 on node7" in line
    assert not list((out / "checkpoints").iterdir())


@pytest.mark.parametrize("storage", ["local", "memory"])
def test_a_run_without_its_checkpoints_is_not_started_anew(
    rooms16: str, tmp_path: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "run") if storage == "local" else f"memory://{tmp_path.name}/run"
    own = [word for word in words(rooms16, Path("x")) if not word.startswith("--run.dir")]
    arguments = [*own, f"--run.dir={url}", "--train.steps=4"]
    assert main(arguments) == 0
    before = store.read_bytes(f"{url}/metrics.jsonl")
    for name in store.sizes(f"{url}/checkpoints"):
        store.remove(f"{url}/checkpoints/{name}")
    for missing in ("", "run.json"):  # and a run of a version that wrote no such file
        if missing:
            store.remove(f"{url}/{missing}")
        for _ in range(2):
            line = told(capsys, arguments)
            assert f"run.dir={url} holds no checkpoint, but a run that came to step 4" in line
            assert "delete that folder to start anew" in line
    assert store.read_bytes(f"{url}/metrics.jsonl") == before


def test_all_ranks_refuse_a_run_without_its_checkpoints(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(2, words(rooms16, out, "--train.steps=2"))
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    assert run_ranks(main, 2, words(rooms16, out, "--train.steps=2")) == [2, 2]
    assert json.loads((out / "run.json").read_text())["owner"] is None
