"""The commands from Python: exceptions, no signals of ours, any thread, one code path with the commands."""

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dcgan_dist import library, pictures, sample
from dcgan_dist.checkpoints.checkpoint import CheckpointError
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config
from dcgan_dist.data import Samples
from dcgan_dist.export import ExportError, export
from dcgan_dist.ranks.world import World
from dcgan_dist.train import main
from shards import ShardsError
from shards.building.build import build
from shards.sources.drawn.rooms import Rooms
from tests.test_promises import losses, weights, words

SMALL = {
    "data.batch_images": 16,
    "model.net": "tiny16",
    "run.log_steps": 1,
    "run.sample_images": 4,
    "train.steps": 6,
    "train.device": "cpu",
    "train.precision": "float32",
}


def small(data: str, out: Path, **more: Any) -> dict[str, Any]:
    return (
        SMALL | {"data.url": data, "run.dir": str(out)} | {n.replace("__", "."): v for n, v in more.items()}
    )


@pytest.fixture(scope="module")
def trained(rooms16: str, tmp_path_factory: pytest.TempPathFactory) -> library.Run:
    return library.train(None, small(rooms16, tmp_path_factory.mktemp("trained") / "run"))


def test_a_run_from_python_has_the_bits_of_the_commands(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: dict[int, dict[str, float]] = {}
    run = library.train(None, small(rooms16, tmp_path / "python"), on_metrics=heard.__setitem__)
    assert (run.step, run.finished) == (6, True)
    assert capsys.readouterr() == ("", "")
    assert main(words(rooms16, tmp_path / "command", "--train.steps=6")) == 0
    expected, found = weights(tmp_path / "command"), weights(tmp_path / "python")
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    assert losses(tmp_path / "python") == losses(tmp_path / "command")
    assert list(heard) == [1, 2, 3, 4, 5, 6]
    assert [heard[line["step"]]["loss/g"] for line in run.metrics() if "loss/g" in line] == [
        line["loss/g"] for line in run.metrics() if "loss/g" in line
    ]


def test_settings_come_from_a_file_a_config_or_a_dict(rooms16: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("train:\n  steps: 3\n")
    run = library.train(str(config), small(rooms16, tmp_path / "a", train__steps=2))
    assert run.step == 2
    nested = {"train": {"steps": 4, "ema_decay": None, "compile": False}}
    assert library.train({**small(rooms16, tmp_path / "a"), **nested}).step == 4
    made = library.networks.received_config(run.dir)[0]
    assert isinstance(made, Config)
    again = library.train(made, {"train.steps": 5})
    assert (again.step, again.checkpoints[-1]) == (5, 5)


def test_training_in_a_thread_and_twice_in_one_process(rooms16: str, tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    runs: list[library.Run] = []

    def work() -> None:
        runs.append(library.train(None, small(rooms16, tmp_path / "thread")))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    runs.append(library.train(None, small(rooms16, tmp_path / "main")))
    assert {number: signal.getsignal(number) for number in before} == before
    assert weights(tmp_path / "thread").keys() == weights(tmp_path / "main").keys()
    for name, value in weights(tmp_path / "thread").items():
        assert torch.equal(value, weights(tmp_path / "main")[name])


def test_a_callback_stops_the_run_and_an_interrupt_leaves_one_to_go_on_with(
    rooms16: str, tmp_path: Path
) -> None:
    stopped = library.train(None, small(rooms16, tmp_path / "a"), on_metrics=lambda step, _: step < 2)
    assert (stopped.finished, stopped.checkpoints) == (False, [stopped.step])
    assert stopped.step < 6

    def interrupt(step: int, values: dict[str, float]) -> None:
        if step == 4:
            raise KeyboardInterrupt

    settings = small(rooms16, tmp_path / "b", run__checkpoint_steps=2)
    with pytest.raises(KeyboardInterrupt):
        library.train(None, settings, on_metrics=interrupt)
    assert library.train(None, settings).finished
    assert library.train(None, small(rooms16, tmp_path / "a")).finished
    for name, value in weights(tmp_path / "a").items():
        assert torch.equal(value, weights(tmp_path / "b")[name])


def test_asked_for_a_signal_stops_the_run_saved(rooms16: str, tmp_path: Path) -> None:
    def strike(step: int, values: dict[str, float]) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    run = library.train(None, small(rooms16, tmp_path / "run"), on_metrics=strike, handle_signals=True)
    assert (run.finished, run.checkpoints) == (False, [run.step])
    assert signal.getsignal(signal.SIGINT) is before


def test_errors_are_exceptions(rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, told in (
        (small(rooms16, tmp_path / "x", model__nett="a"), "did you mean model.net?"),
        (small(rooms16, tmp_path / "x", train__steps=-1), "train.steps=-1"),
        (small(rooms16, tmp_path / "x", model__net="dcgan64"), "draws 64x64 pictures"),
    ):
        with pytest.raises(ConfigError, match=re.escape(told)):
            library.train(None, settings)
    with pytest.raises(CheckpointError, match="is not a run folder"):
        library.load(str(tmp_path))
    assert capsys.readouterr() == ("", "")


def test_scores_are_a_dict(trained: library.Run) -> None:
    told = library.evaluate(trained, images=32)
    assert told["step"] == 6
    assert {"swd", "swd_floor", "precision"} <= told["scores"].keys()
    assert told["scores"] == library.evaluate(trained.dir, images=32, device="cpu")["scores"]


def test_a_small_set_is_scored_by_what_it_has(trained: library.Run, tmp_path: Path) -> None:
    few, fewer = str(tmp_path / "few"), str(tmp_path / "fewer")
    build(Rooms(70, size=16), few, size=16, workers=1)
    build(Rooms(20, size=16), fewer, size=16, workers=1)
    assert library.evaluate(trained, data=few)["protocol"]["images"] == 35
    with pytest.raises(ShardsError, match="has 20 pictures, 32 are needed"):
        library.evaluate(trained, data=fewer)


def test_networks_draw_and_see(trained: library.Run, rooms16: str, tmp_path: Path) -> None:
    model = trained.load()
    assert model.sample(5, seed=1).shape == (5, 3, 16, 16)
    images = np.stack([sample.picture for sample in Samples(rooms16)[:40]])
    found = model.features(images)
    assert found.shape[0] == len(images)
    assert np.array_equal(model.features(images[:8], statistics=images), found[:8])
    export(trained.dir, str(tmp_path / "out"), onnx=False)
    exported = library.load(str(tmp_path / "out"))
    assert torch.equal(exported.sample(5, seed=1), model.sample(5, seed=1))
    assert exported.step == 6
    for source in (trained.dir, str(tmp_path / "out")):
        assert sample.main([source, "--images=5", "--seed=1", f"--out={tmp_path / 'drawn.npy'}"]) == 0
        drawn = np.load(tmp_path / "drawn.npy")
        assert np.array_equal(drawn, pictures.to_uint8(model.sample(5, seed=1)))
    with pytest.raises(ConfigError, match="holds a generator alone"):
        exported.features(images)


@pytest.mark.parametrize(
    "change", [{"net": "x"}, {"norm_eps": "a"}, {"step": None}, {"norm": "most"}, {"net": "dcgan64"}]
)
def test_an_export_that_is_none_of_ours_is_one_line(
    trained: library.Run, tmp_path: Path, change: dict[str, Any]
) -> None:
    export(trained.dir, str(tmp_path), onnx=False)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises((ExportError, CheckpointError), match=r"[^\n]+"):
        library.load(str(tmp_path))
    (tmp_path / "generator.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ExportError):
        library.load(str(tmp_path))


@pytest.mark.parametrize(
    "first", ["", "import dcgan_dist.train, dcgan_dist.evaluate", "from dcgan_dist.train import main"]
)
def test_the_package_offers_them_whatever_was_imported_before(first: str) -> None:
    program = f"""
{first}
import sys, dcgan_dist
if {not first}: assert "torch" not in sys.modules
assert callable(dcgan_dist.train) and callable(dcgan_dist.evaluate) and callable(dcgan_dist.load)
assert dcgan_dist.__version__
try: dcgan_dist.train(None, {{"train.nosuch": 1}})
except dcgan_dist.config.reading.ConfigError as error: print(error)
try: dcgan_dist.nosuch
except AttributeError: print("none")
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[0].startswith("command line: unknown setting train.nosuch")
    assert told.stdout.splitlines()[1] == "none"


def test_a_world_of_one() -> None:
    here = World.alone()
    assert (here.rank, here.ranks, here.device.type) == (0, 1, "cpu")
    assert here.agree(5) == 5


def test_the_page_for_python_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    build(Rooms(300, size=16), "data/rooms16", size=16, workers=1)
    exec(compile("\n".join(blocks), "python.md", "exec"), {"__name__": "notebook"})
    assert "stopped at step" in capsys.readouterr().out
