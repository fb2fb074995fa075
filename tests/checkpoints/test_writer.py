"""A failed write is told at the next step, tried again, and ends the run when it keeps failing."""

import threading
from functools import partial

import pytest

from dcgan_dist.checkpoints import writer
from dcgan_dist.checkpoints.writer import UnsavedError, Writer
from shards.errors import StoreError
from tests.waiting import until


class Disk:
    """Full for the first `failures` writes."""

    def __init__(self, failures: int) -> None:
        self.failures, self.tries = failures, 0
        self.written: list[int] = []

    def write(self, step: int) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise StoreError("cannot write x: No space left on device")
        self.written.append(step)


def test_a_write_that_fails_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "PAUSES_SECONDS", (0.01, 0.01))
    disk, saving = Disk(2), Writer()
    saving.save(5, lambda: disk.write(5))
    until(lambda: disk.written == [5])
    saving.check()
    assert caplog.messages == ["step 5 is not saved yet: cannot write x: No space left on device"] * 2
    saving.close()


def test_writes_that_keep_failing_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PAUSES_SECONDS", (0.01, 0.01))
    disk, saving = Disk(99), Writer()
    saving.save(5, lambda: disk.write(5))
    until(lambda: disk.tries == 3)
    with pytest.raises(
        UnsavedError, match=r"step 5 could not be saved in 3 tries: .* No space left"
    ) as error:
        saving.close()
    assert "\n" not in str(error.value)


def test_a_newer_checkpoint_takes_the_place_of_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PAUSES_SECONDS", (60.0, 60.0))
    disk, saving = Disk(1), Writer()
    saving.save(5, lambda: disk.write(5))
    until(lambda: disk.tries == 1)
    saving.save(6, lambda: disk.write(6))
    saving.close()
    assert disk.written == [6]


def test_saving_does_not_wait_for_storage(caplog: pytest.LogCaptureFixture) -> None:
    saving, slow, disk = Writer(), threading.Event(), Disk(0)
    saving.save(1, lambda: (slow.wait(30), disk.write(1))[1])  # type: ignore[func-returns-value]
    until(lambda: saving._waiting is None)
    saving.save(2, lambda: disk.write(2))
    saving.save(3, lambda: disk.write(3))
    saving.check()
    assert caplog.messages == ["step 2 was not saved: storage is slower than run.checkpoint_steps"]
    slow.set()
    saving.close()
    assert disk.written == [1, 3]


def test_what_storage_does_not_explain_is_raised_as_it_is() -> None:
    saving = Writer()
    saving.save(1, lambda: [][0])
    with pytest.raises(IndexError):
        saving.close()


def test_what_is_drawn_before_a_snapshot_comes_before_it_and_all_of_it_by_the_end() -> None:
    saving, slow = Writer(), threading.Event()
    done: list[str] = []
    saving.draw(lambda: (slow.wait(30), done.append("grid 1"))[1])  # type: ignore[func-returns-value]
    saving.save(1, lambda: done.append("step 1"))
    saving.draw(lambda: done.append("grid 2"))
    saving.save(2, lambda: done.append("step 2"))
    saving.draw(lambda: done.append("grid 3"))
    assert done == []
    slow.set()
    saving.close()
    assert done == ["grid 1", "grid 2", "grid 3", "step 2"]


def test_an_error_of_a_drawing_is_raised_and_no_later_snapshot_is_written() -> None:
    saving, disk = Writer(), Disk(1)
    saving.draw(lambda: disk.write(5))
    saving.save(6, lambda: disk.write(6))
    with pytest.raises(StoreError, match="No space left"):
        saving.close()
    assert disk.written == []


def test_training_waits_where_storage_is_slower_than_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "DRAWINGS", 2)
    saving, slow = Writer(), threading.Event()
    drawn: list[int] = []
    saving.draw(lambda: (slow.wait(30), drawn.append(0))[1])  # type: ignore[func-returns-value]
    until(lambda: not saving._drawings)
    for number in (1, 2):
        saving.draw(partial(drawn.append, number))
    threading.Timer(0.2, slow.set).start()
    saving.draw(partial(drawn.append, 3))
    assert drawn[:2] == [0, 1]
    saving.close()
    assert drawn == [0, 1, 2, 3]
