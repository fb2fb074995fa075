"""Benchmarks run and write lines that say all they must; no test asserts a speed."""

import json
from pathlib import Path

import pytest

from benchmarks import record, tables


def test_a_line_says_what_was_measured_where_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "HERE", tmp_path)
    record.record("x", "x/y", [3.0, 1.0, 2.0], unit="images/s", config={"batch_images": 4})
    line = json.loads((tmp_path / "x.jsonl").read_text())
    assert (line["value"], line["repeats"], line["unit"]) == (2.0, 3, "images/s")
    assert line["low"] <= line["value"] <= line["high"]
    assert {"command", "commit", "config", "date", "dirty", "hardware", "versions", "what"} <= line.keys()


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def contender(name: str) -> int:
        turns.append(name)
        return 10

    rates = record.interleaved({"a": lambda: contender("a"), "b": lambda: contender("b")}, repeats=2)
    assert turns == ["a", "b"] * 3
    assert [len(values) for values in rates.values()] == [2, 2]
    assert record.ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


def test_the_plain_loop_and_ours_both_step() -> None:
    import torch

    from benchmarks.step import _ours, _plain

    for make in (_plain, _ours):
        for precision in ("float32", "bfloat16"):
            assert make("tiny16", torch.device("cpu"), 4, precision, 2)() == 8


def test_the_page_of_numbers_is_what_the_lines_say() -> None:
    assert tables.PAGE.read_text(encoding="utf-8") == tables.page(), "run: python -m benchmarks.tables"
