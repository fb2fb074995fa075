"""Silence is a loss, but not of those who slept together, nor of who is only slow."""

import pytest

from dcgan_dist.ranks import heartbeat
from dcgan_dist.ranks.heartbeat import Beats


class Clock:
    """A time that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(heartbeat, "time", found)
    return found


def test_who_says_nothing_for_long_is_silent(clock: Clock) -> None:
    beats = Beats([1, 2])
    for _ in range(10):
        clock.now += 1
        beats.hear(1)
        assert beats.silent() == ({2} if clock.now > 109 else set())
    beats.forget(2)
    assert beats.silent() == set()


def test_who_was_stopped_itself_has_missed_what_was_said(clock: Clock) -> None:
    beats = Beats([1])
    beats.silent()
    clock.now += 1000
    assert beats.silent() == set()
    for _ in range(9):
        clock.now += 1
        assert beats.silent() == set()
    clock.now += 1
    assert beats.silent() == {1}


def test_a_beat_is_due_every_second(clock: Clock) -> None:
    beats = Beats([1])
    due = []
    for _ in range(8):
        due.append(beats.due())
        clock.now += 0.5
    assert due == [True, False] * 4


def test_only_who_is_behind_hangs_and_only_after_the_time_of_a_collective(clock: Clock) -> None:
    beats = Beats([1, 2], hang_seconds=60)
    assert beats.hanging(0) == {}
    beats.own_step = 7
    beats.hear(1, 7)
    beats.hear(2, 6)
    assert beats.hanging(0) == {}
    clock.now += 59
    assert beats.hanging(0) == {}
    clock.now += 2
    assert beats.hanging(0) == {2: 7}
    beats.hear(2, 7)
    assert beats.hanging(0) == {}
    clock.now += 61  # all have begun it, and none is behind
    assert beats.hanging(0) == {}
