"""A trace of a run's steps can be opened and shows the network's work."""

import gzip
import json
import re
from pathlib import Path

import pytest

from dcgan_dist.train import main
from tests.test_promises import run, words


def test_a_trace_holds_the_steps_asked_for(rooms16: str, tmp_path: Path) -> None:
    run(1, [*words(rooms16, tmp_path), "--run.profile_steps=2", "--train.steps=9"])
    found = json.loads(gzip.decompress((tmp_path / "profile" / "rank-0.json.gz").read_bytes()))
    names = [event.get("name", "") for event in found["traceEvents"]]
    assert sum(name.startswith("ProfilerStep#") for name in names) >= 2
    assert any("convolution" in name for name in names)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (6, "run.profile_steps=4: the run ended after 6 steps of this start, .* the trace holds 1"),
        (3, "run.profile_steps=4: the run ended after 3 steps of this start, .* there is no trace"),
    ],
)
def test_a_run_that_ends_before_its_trace_says_so(
    rooms16: str, tmp_path: Path, steps: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert main([*words(rooms16, tmp_path), "--run.profile_steps=4", f"--train.steps={steps}"]) == 0
    assert re.search(told, caplog.text)
    assert (tmp_path / "profile" / "rank-0.json.gz").exists() == (steps > 5)


def test_the_profiler_is_stopped_when_its_steps_are_done_and_says_nothing(
    rooms16: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for out in ("one", "other"):  # a profiler that still ran would refuse a second
        assert main([*words(rooms16, tmp_path / out), "--run.profile_steps=2", "--train.steps=7"]) == 0
        assert (tmp_path / out / "profile" / "rank-0.json.gz").exists()
    assert "profile_steps" not in caplog.text
