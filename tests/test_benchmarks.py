"""Benchmarks run and write lines that say all they must; no test asserts a speed."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import first_day, model, record, step, tables
from benchmarks.model import _through, multiplications
from dcgan_dist.gan.description import Layer, parse_net


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


def test_the_plain_loop_with_every_switch_and_ours_step() -> None:
    cpu = torch.device("cpu")
    for switches in step.SWITCHES.values():
        assert step.make_plain("tiny16", cpu, 4, switches, 2)() == 8
    for precision in ("float32", "bfloat16"):
        assert step.make_ours("tiny16", cpu, 4, precision, 2)() == 8


def test_operations_of_a_step_are_counted() -> None:
    net = parse_net("tiny16")
    # On one minibatch, both updates share G(z); and no gradient of pictures or z is needed.
    shared = 2 * _through([Layer(net.z_size, 1), *net.g], net.kernel)
    pictures, z = 2 * 3 * 8 * net.kernel**2 * 8**2, 2 * net.z_size * 16 * 4**2
    logits = 8 * 2 * 16 * 4**2  # the model leaves them out
    assert step.operations("tiny16", 4) == multiplications(net) - shared - 2 * pictures - z + logits


def test_the_page_of_numbers_is_what_the_lines_say() -> None:
    assert tables.PAGE.read_text(encoding="utf-8") == tables.page(), "run: python -m benchmarks.tables"


def test_the_first_day_keeps_each_test_and_each_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for where in ("HERE", "OUT", "ROOT"):
        monkeypatch.setattr(record if where == "HERE" else first_day, where, tmp_path)
    (tmp_path / "test_it.py").write_text(
        "def test_good(record_property): record_property('seconds', 3.5)\n"
        "def test_bad(): assert 1 == 2\n"
        "import pytest\n"
        "@pytest.mark.skip\n"
        "def test_left_out(): pass\n"
    )
    results = tmp_path / "check.xml"
    words = ["pytest", "test_it.py", f"--junitxml={results}", "-o", "junit_family=xunit1"]
    assert first_day.run(first_day.Part("check", words, 60, lambda: first_day.keep_tests(results)))
    assert (
        first_day.run(first_day.Part("slow", ["http.server", "0", "--bind", "127.0.0.1"], 1))
        == "not done after 1 s"
    )
    found = {
        line["what"]: line for line in map(json.loads, (tmp_path / "gpu.jsonl").read_text().splitlines())
    }
    assert found["gpu/check/good"]["value"] == 1
    assert found["gpu/check/good"]["config"]["seconds"] == "3.5"
    assert found["gpu/check/bad"]["value"] == 0
    assert "1 == 2" in found["gpu/check/bad"]["config"]["failure"]
    assert "gpu/check/left_out" not in found
    assert found["gpu/first_day/check"]["config"]["fault"] == "exit code 1"
    assert found["gpu/first_day/slow"]["config"]["fault"] == "not done after 1 s"


def test_the_first_day_without_a_card_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["first_day"])
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert first_day.main() == 2
    assert capsys.readouterr().err == "error: torch sees no CUDA device here; this measures one\n"


def test_the_page_of_scaling_is_what_the_model_says() -> None:
    assert model.PAGE.read_text(encoding="utf-8") == model.page(), "run: python -m benchmarks.model"
