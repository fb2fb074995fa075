"""A trace of a run's steps can be opened and shows the network's work."""

import gzip
import json
from pathlib import Path

from tests.test_promises import run, words


def test_a_trace_holds_the_steps_asked_for(rooms16: str, tmp_path: Path) -> None:
    run(1, [*words(rooms16, tmp_path), "--run.profile_steps=2", "--train.steps=9"])
    found = json.loads(gzip.decompress((tmp_path / "profile" / "rank-0.json.gz").read_bytes()))
    names = [event.get("name", "") for event in found["traceEvents"]]
    assert sum(name.startswith("ProfilerStep#") for name in names) >= 2
    assert any("convolution" in name for name in names)
