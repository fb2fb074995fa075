"""The commands end to end on a tiny run, and what they refuse in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dcgan_dist import train
from dcgan_dist.probe import supervised
from dcgan_dist.probe.__main__ import PROTOCOLS, main
from shards.building.build import build
from shards.sources.drawn.rooms import Rooms
from shards.sources.published.digits import Digits
from tests.test_promises import words


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    build(Digits("test"), str(folder / "set"), size=16, workers=1)
    assert train.main(words(str(folder / "set"), folder / "run", "--train.steps=2")) == 0
    return folder / "run"


@pytest.mark.slow
def test_methods_are_measured_and_kept_with_their_protocol(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(PROTOCOLS["digits"], grid=(1e-3, 1e-2))
    monkeypatch.setitem(PROTOCOLS, "digits", quick)
    assert main(["digits", str(run), "--methods", "dcgan,random,nearest", "--draws", "2"]) == 0
    told = json.loads((run / "probe" / "digits.json").read_text())
    assert {"name", "command", "dataset", "run", "step", "protocol", "paper", "results"} <= told.keys()
    few, everything = (r for r in told["results"] if r["method"] == "dcgan")
    assert (few["labels"], everything["labels"]) == ("10 per class", "all 1397")
    assert few["features"] == (8 + 16) * 16
    assert "9 batches of 128 of 1097 pictures" in few["batch_norm"]
    assert few["interval_of"] == "1.96 standard deviations over 2 draws"
    assert 0 < everything["error"] < few["error"] < 90
    # Another method at another time joins them.
    assert main(["digits", str(run), "--methods", "raw,nearest", "--draws", "2"]) == 0
    told = json.loads((run / "probe" / "digits.json").read_text())
    methods = [result["method"] for result in told["results"] if result["labels"] == "10 per class"]
    assert methods == ["dcgan", "random", "raw", "nearest"]
    shown = capsys.readouterr().out
    assert "random" in shown
    assert "nearest" in shown


def test_trials_may_be_done_in_parts_and_are_not_done_twice(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "EPOCHS", 3)
    monkeypatch.setattr(supervised, "DRAWS", 2)
    search = ["digits", str(run), "--methods", "supervised", "--trials", "3"]
    assert main([*search, "--part", "2/2"]) == 0
    (only,) = (run / "probe").glob("trials-*.json")
    assert only.name == "trials-digits-10-001.json"
    before = only.stat().st_mtime_ns
    assert main(search) == 0
    assert only.stat().st_mtime_ns == before
    (found,) = json.loads((run / "probe" / "digits.json").read_text())["results"]
    trials = [json.loads(path.read_text()) for path in (run / "probe").glob("trials-*.json")]
    assert found["validation_error"] == min(trial["validation_error"] for trial in trials)
    only.write_text("{}")
    assert main(search) == 2
    assert "is not a trial's outcome" in capsys.readouterr().err


def test_trials_lie_in_their_ranges_and_differ() -> None:
    trials = [supervised.draw_trial(number, seed=1) for number in range(100)]
    assert len(set(trials)) == 100
    assert all(
        1e-4 <= t.lr <= 1e-2 and 1e-6 <= t.weight_decay <= 1e-2 and 0 <= t.dropout < 0.5 for t in trials
    )
    assert {t.beta1 for t in trials} == {0.5, 0.9}


def test_wrong_words_are_refused_in_one_line(
    run: Path, tmp_path: Path, rooms16: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build(Rooms(20, size=32), str(tmp_path / "rooms32"), size=32, workers=1)
    build(Digits("test"), str(tmp_path / "digits8"), size=8, workers=1)
    eight = str(tmp_path / "digits8")
    for arguments, told in (
        (["digits", str(tmp_path)], "is not a run folder"),
        (["digits", str(run), "--step", "7"], "has no checkpoint at step 7; there are: 2"),
        (
            ["digits", str(run), "--layers", "conv7"],
            "layer 'conv7' is not one of this network's: conv1, conv2",
        ),
        (["digits", str(run), "--methods", "svm"], "method 'svm' is not one of dcgan, random"),
        (["cifar10", str(run)], "cifar10 needs --data, a dataset that python -m shards build has written"),
        (["imagefolder", str(run), "--data", rooms16], "has no classes; build it from a source with labels"),
        (["svhn", str(run), "--data", str(tmp_path / "none")], "none"),
        (
            ["svhn", str(run), "--data", eight],
            "holds 8x8 pictures but the run's network takes 16x16; rebuild",
        ),
        (["svhn", str(run), "--data", str(run.parent / "set")], "svhn needs --test, its published test set"),
        (["mnist", str(run), "--data", eight], "mnist needs --data and --test"),
        (["mnist", str(run), "--data", eight, "--test", str(run.parent / "set")], "other classes or sizes"),
        (["mnist", str(run), "--data", eight, "--test", eight, "--widths", "3,4"], "--widths needs three"),
    ):
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
