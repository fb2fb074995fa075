"""A run folder that somebody else made: nothing in it is run, leads out of it, or ends in a traceback."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dcgan_dist import evaluate, export, sample, train
from dcgan_dist.explore.__main__ import main as explore
from dcgan_dist.judge import judge
from dcgan_dist.probe.__main__ import main as probe
from dcgan_dist.report.__main__ import main as report
from dcgan_dist.run_folder import untrusted
from dcgan_dist.run_folder.finding import ExploreError
from shards import ShardsError
from shards.building.build import build
from shards.sources.drawn.rooms import Rooms
from tests.test_promises import words

FINDING = {
    "format": 1,
    "name": "walk",
    "title": "Walk",
    "paper": "E4",
    "step": 20,
    "command": "c",
    "measures": [{"name": "m", "value": 0.5, "low": 0.1, "high": 0.9, "rule": "at least 1", "passed": False}],
    "notes": ["n"],
    "figures": [{"file": "walk-1.png", "caption": "p"}],
}
PROBE = {
    "results": [{"method": "dcgan", "labels": 100, "error": 7.25, "interval": 1.5}],
    "paper": {"dcgan": 2},
}
OTHERS: list[Any] = [None, True, 3, 1e999, 10**400, "<script>alert(1)</script>", [], [3], {}, {"a": [1]}]


@pytest.fixture(scope="module")
def trained(rooms16: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("received") / "run"
    assert train.main(words(rooms16, out, "--train.steps=4")) == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def reported(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The page, and what was said to be left out."""
    capsys.readouterr()
    assert report([str(run)]) == 0
    told = capsys.readouterr().err
    assert all(line.startswith("left out: ") for line in told.splitlines()), told
    return (run / "report.html").read_text(), told


def write(run: Path, name: str, value: object) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "real.png", "samples/step-00000004.png", "explore/walk.json"]
)
def test_a_report_shows_nothing_from_outside_of_the_run(
    run: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((run / "real.png").read_bytes() + b"0123456789" * 30)
    write(run, "explore/walk.json", FINDING)
    (run / name).unlink()
    (run / name).symlink_to(secret)
    page, told = reported(run, capsys)
    assert "leads out of the run folder" in told
    assert "MDEyMzQ1Njc4OTAxMjM0NTY3ODkw" not in page  # its end in base64


def test_a_report_embeds_pictures_only(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "real.png").write_text("a diary")
    os.mkfifo(run / "explore.png")
    write(run, "explore/walk.json", FINDING | {"figures": [{"file": "../x/..", "caption": ""}]})
    page, told = reported(run, capsys)
    assert "real.png is not what it should be" in told
    assert "'..' is no picture's name" in told
    assert "YSBkaWFyeQ" not in page


def test_aliases_without_end_cost_no_time(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    merges = [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 30)]
    text = "\n".join(["a0: &a0 [x]", *rows, "m0: &m0 {x: 1}", *merges, "model: {net: *a29}", ""])
    write(run, "config.yaml", text)
    page, _ = reported(run, capsys)
    assert "The DCGAN paper" in page
    assert sample.main([str(run)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["explore/walk.json", "probe/svhn.json", "metrics.jsonl", "config.yaml"])
def test_other_types_are_left_out_in_one_line(
    run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sound: dict[str, Any] = {
        "explore/walk.json": FINDING,
        "probe/svhn.json": PROBE,
        "metrics.jsonl": {"step": 0, "loss/d": 1.0, "eval/swd": 2.0},
        "config.yaml": {"model": {"net": "tiny16"}, "data": {"url": "x"}, "train": {"seed": 1}},
    }[name]
    for place in places(sound):
        for other in OTHERS:
            write(run, name, changed(sound, place, other))
            page, _ = reported(run, capsys)
            assert "<script>" not in page
    for text in ("", "[" * 100000, "\ud800".encode("utf-8", "surrogatepass").decode("latin1"), '"\\ud800"'):
        write(run, name, text)
        reported(run, capsys)


def test_text_that_cannot_be_written_is_shown_as_its_escape(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run, "explore/walk.json", FINDING | {"title": "\ud800", "notes": ["\udcff", "<b>"]})
    page, _ = reported(run, capsys)
    assert "\\xff" in page
    assert "&lt;b&gt;" in page


def test_a_folder_in_the_place_of_a_file_and_the_reverse(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("real.png", "metrics.jsonl"):
        (run / name).unlink()
        (run / name).mkdir()
    for name in ("samples", "checkpoints"):
        shutil.rmtree(run / name)
        (run / name).write_text("x")
    _, told = reported(run, capsys)
    assert len(told.splitlines()) == 4


COMMANDS: list[tuple[str, Any]] = [
    ("explore", lambda run: explore(["walk", run])),
    ("scores", lambda run: evaluate.main([run, "--images", "16"])),
    ("probe", lambda run: probe(["digits", run, "--methods", "raw"])),
    ("checkpoints", lambda run: sample.main([run, "--out", f"{run}.png"])),
    ("checkpoints", lambda run: export.main([run, f"{run}-model", "--no-onnx"])),
]


@pytest.mark.parametrize(("name", "does"), COMMANDS)
def test_no_command_reads_or_writes_through_a_link(
    run: Path, tmp_path: Path, name: str, does: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.mkdir()
    before = sorted(path.name for path in outside.iterdir())
    (run / name).symlink_to(outside)
    capsys.readouterr()
    assert does(str(run)) == 2
    assert "leads out of the run folder" in capsys.readouterr().err
    assert sorted(path.name for path in outside.iterdir()) == before
    assert not Path(f"{run}-model").exists()


def test_links_within_a_run_are_followed_and_others_are_not(run: Path, tmp_path: Path) -> None:
    (run / "best.png").symlink_to("real.png")
    assert untrusted.read(str(run), "best.png") == (run / "real.png").read_bytes()
    (tmp_path / "linked").symlink_to(run)
    assert untrusted.read(str(tmp_path / "linked"), "best.png")
    (run / "loop").symlink_to("loop")
    (run / "part").symlink_to("/")
    for names in (("loop",), ("part", "etc"), ("..", "x"), ("nul\0",), ("samples",)):
        with pytest.raises(ShardsError):
            untrusted.read(str(run), *names)
    os.mkfifo(run / "pipe")
    with pytest.raises(ShardsError, match="neither a file nor a folder"):
        untrusted.read(str(run), "pipe")


def test_a_network_that_would_not_fit_into_memory_is_refused_by_its_weights(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "config.yaml").read_text()
    for net in ("z90000000 k5 g 900000@4 3@8 d 90000@4", "z0 k5", "moon"):
        write(run, "config.yaml", text.replace("net: tiny16", f"net: {net}"))
        capsys.readouterr()
        assert sample.main([str(run)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def places(value: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


def changed(data: Any, way: tuple[Any, ...], value: object) -> Any:
    """A copy of `data` with another value at the end of `way`."""
    if not way:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[way[0]] = changed(data[way[0]], way[1:], value)
    return copy


def test_a_judge_of_other_types_is_damaged(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "EPOCHS", 1)
    run = Path(shutil.copytree(trained, tmp_path / "judged"))
    small = str(tmp_path / "set")
    build(Rooms(60, size=16), small, size=16, workers=1)
    assert explore(["judge", str(run), "--data", small]) == 0
    facts = json.loads((run / "explore" / "judge-net.json").read_text())
    for place in places({key: facts[key] for key in ("attributes", "objects", "held_out")})[1:]:
        for other in OTHERS:
            write(run, "explore/judge-net.json", changed(facts, place, other))
            with contextlib.suppress(ExploreError):
                judge._load(str(run), facts["about"])


def test_a_setting_of_another_version_is_no_matter_to_what_only_draws(
    run: Path, rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = (run / "config.yaml").read_text()
    old = sound.replace("  threads:", "  prefetch_blocks: 8\n  threads:").replace("lr: 0.0002", "rate: 0.02")
    old = old.replace("checkpoint_best: null", "checkpoint_best: beauty") + "later:\n  any: [1]\nmore: 3\n"
    write(run, "config.yaml", old)
    assert sample.main([str(run), "--out", str(tmp_path / "x.png")]) == 0
    assert evaluate.main([str(run), "--images", "16"]) == 0
    assert explore(["walk", str(run)]) == 0
    assert probe(["digits", str(run), "--methods", "raw", "--draws", "2"]) == 0
    assert export.main([str(run), str(tmp_path / "model"), "--no-onnx"]) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "learning rate" not in card  # it is not known
    assert "16 images" in card
    assert train.main([str(run / "config.yaml")]) == 2
    assert "unknown setting data.prefetch_blocks" in capsys.readouterr().err
    assert train.main(words(rooms16, run, "--train.steps=6")) == 2
    assert "unknown setting data.prefetch_blocks" in capsys.readouterr().err
    write(run, "config.yaml", sound.replace("  norm:", "  spectral: true\n  norm:"))
    assert sample.main([str(run)]) == 2
    assert "unknown setting model.spectral" in capsys.readouterr().err
