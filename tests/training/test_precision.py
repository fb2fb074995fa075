"""`train.precision: auto` is decided once, by rank 0, written down, and kept wherever the run goes on."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from dcgan_dist.config.rules import check
from dcgan_dist.config.settings import Config, Run, Train, read_config
from dcgan_dist.ranks.world import World, join
from dcgan_dist.run_folder.same_run import differences
from dcgan_dist.train import main
from dcgan_dist.training import players, precision
from dcgan_dist.training.precision import choose, settle, speed
from tests.processes import run_ranks

CPU = torch.device("cpu")
ALONE = World.alone()
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}

CONFIGS = Path(__file__).parent.parent.parent / "configs"


def words(url: str, run: Path, *more: str) -> list[str]:
    sizes = ["--model.net=tiny16", "--data.batch_images=16", "--run.sample_images=4"]
    return [f"--data.url={url}", f"--run.dir={run}", "--train.device=cpu", *sizes, *more]


def recorded(run: Path) -> str:
    found: str = yaml.safe_load((run / "config.yaml").read_text())["train"]["precision"]
    return found


def test_auto_is_the_default() -> None:
    assert Config().train.precision == "auto"


def test_a_cpu_without_units_gets_float32_and_the_reason() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import torch, dcgan_dist.training.precision as p; print(p.choose(torch.device('cpu')))",
        ],
        env=os.environ | AVX2,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "'float32'" in told
    assert "no bfloat16 units" in told


@pytest.mark.parametrize(("gain", "chosen"), [(1.8, "bfloat16"), (1.0, "float32"), (0.5, "float32")])
def test_units_that_are_slower_than_float32_are_not_chosen(
    gain: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(precision, "speed", lambda *_: gain)
    found, why = choose(CPU)
    assert found == chosen
    assert f"{gain:.2g} times" in why


@pytest.mark.parametrize(
    ("capability", "chosen"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_gpus_by_their_compute_capability(
    capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose(torch.device("cuda", 0))[0] == chosen


def test_a_speed_is_a_ratio_and_float32s_own_is_one() -> None:
    assert 0.2 < speed(CPU, torch.float32) < 5


def choose_on_rank(by_rank: list[str], run: str) -> tuple[str, str]:
    with join(device="cpu", timeout_seconds=60) as here:
        precision.choose = lambda _: (by_rank[here.rank], "it is told so")  # type: ignore
        config = settle(Config(run=Run(dir=run)), here)
        return config.train.precision, by_rank[here.rank]


@pytest.mark.parametrize("by_rank", [["float32", "bfloat16"], ["bfloat16", "float32"]])
def test_rank_0_decides_where_two_ranks_would_choose_differently(by_rank: list[str], tmp_path: Path) -> None:
    found = run_ranks(choose_on_rank, 2, by_rank, str(tmp_path / "run"))
    assert [told for told, _ in found] == [by_rank[0]] * 2
    assert [own for _, own in found] == by_rank


@pytest.mark.parametrize(("first", "then"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_run_keeps_what_it_began_with_wherever_it_goes_on(
    first: str,
    then: str,
    rooms16: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(precision, "choose", lambda _: (first, "of this machine"))
    assert main(words(rooms16, run, "--train.steps=2")) == 0
    assert f"train.precision=auto is {first}: of this machine" in capsys.readouterr().out
    assert recorded(run) == first
    monkeypatch.setattr(precision, "choose", lambda _: (then, "of that machine"))
    assert main(words(rooms16, run, "--train.steps=4")) == 0
    told = capsys.readouterr().out
    assert f"train.precision=auto is {first}: as this run began" in told
    assert "going on from step 2" in told
    assert recorded(run) == first
    # By name, it is the run's own or another run.
    assert main(words(rooms16, run, "--train.steps=4", f"--train.precision={then}")) == 2
    assert "another train.precision" in capsys.readouterr().err


def test_a_run_of_another_kind_of_machine_goes_on_bit_for_bit_in_its_own_precision(
    rooms16: str, tmp_path: Path
) -> None:
    """Started as on a machine with AVX2 only, resumed on this one."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "dcgan_dist.train"]
    env = os.environ | AVX2
    subprocess.run(
        [*command, *words(rooms16, run, "--train.steps=2")], env=env, check=True, capture_output=True
    )
    assert recorded(run) == "float32"
    assert main(words(rooms16, run, "--train.steps=3")) == 0
    assert recorded(run) == "float32"


def test_half_precision_by_name_is_obeyed_with_one_warning_that_says_how_slow_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "speed", lambda *_: 0.02)
    config = Config(train=Train(precision="bfloat16"))
    with caplog.at_level(logging.WARNING):
        assert settle(config, ALONE) == config
    assert [record.getMessage() for record in caplog.records] == [
        "train.precision=bfloat16: convolutions take 50 times as long as in float32, "
        "train.precision=auto would choose float32 for a new run"
    ]


def test_auto_differs_from_nothing_and_names_differ_from_each_other() -> None:
    auto, float32 = Config(), Config(train=Train(precision="float32"))
    assert differences(float32, auto) == []
    assert differences(float32, replace(auto, train=Train(precision="bfloat16"))) == ["train.precision"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=str)
def test_every_config_leaves_the_precision_to_the_machine(path: Path) -> None:
    config = read_config([str(path)], "train")
    check(config, ranks=1)
    assert config.train.precision == "auto"


class Library:
    """A C library whose mallopt takes no threshold above `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.calls = most, list[tuple[int, int]]()

    def mallopt(self, what: int, value: int) -> int:
        self.calls.append((what, value))
        return int(what == -1 or value <= self.most)


@pytest.mark.parametrize(("most", "taken"), [(1 << 30, 1 << 30), (1 << 25, 1 << 25), (0, None)])
def test_the_answer_of_mallopt_is_heeded(
    most: int, taken: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(most)
    monkeypatch.setattr(players.sys, "platform", "linux")  # type: ignore[attr-defined]
    monkeypatch.setattr(players.ctypes, "CDLL", lambda _: library)  # type: ignore[attr-defined]
    assert players.keep_freed_memory() == (taken is not None)
    trims = [value for what, value in library.calls if what == -1]
    assert bool(trims) == (taken is not None)
    if taken is not None:
        assert library.calls[-2] == (-3, taken)


def test_other_systems_and_libraries_without_mallopt_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(players.ctypes, "CDLL", lambda _: object())  # type: ignore[attr-defined]
    assert not players.keep_freed_memory()
    monkeypatch.setattr(players.sys, "platform", "darwin")  # type: ignore[attr-defined]
    monkeypatch.setattr(players.ctypes, "CDLL", lambda _: pytest.fail("asked"))  # type: ignore[attr-defined]
    assert not players.keep_freed_memory()
