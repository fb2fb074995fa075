"""The commands on a run of a few steps: files whole, numbers there, every wrong use one line."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import dcgan_dist
from dcgan_dist import export, train
from dcgan_dist.explore import filters, walk
from dcgan_dist.explore.__main__ import main
from dcgan_dist.judge import exemplars as chosen
from dcgan_dist.judge import judge
from dcgan_dist.report.__main__ import main as report
from dcgan_dist.report.paper import SECTIONS
from dcgan_dist.run_folder import finding
from shards.building.build import build
from shards.sources.drawn.rooms import Rooms
from tests.test_promises import words


@pytest.fixture(scope="module")
def run(rooms16: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("explored") / "run"
    assert train.main(words(rooms16, out, "--run.checkpoint_steps=10")) == 0
    return str(out)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MIDPOINTS", 24)
    monkeypatch.setattr(walk, "SEGMENTS", 4)
    monkeypatch.setattr(filters, "SCORED_IMAGES", 100)
    monkeypatch.setattr(judge, "EPOCHS", 1)
    monkeypatch.setattr(chosen, "POOL", 200)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def found(run: str, name: str) -> dict[str, object]:
    read = finding.read(run, name)
    assert read is not None
    for figure in read["figures"]:
        with Image.open(Path(run) / "explore" / figure["file"]) as picture:
            picture.load()
    return read


def test_each_exploration_leaves_its_numbers_its_pictures_and_its_command(run: str, tmp_path: Path) -> None:
    held_out = str(tmp_path / "fresh")
    build(Rooms(100, size=16, seed=9), held_out, size=16, workers=1)
    for words_of in (
        ["judge", run],
        ["walk", run],
        ["filters", run],
        ["underfit", run],
        ["neighbours", run, "--held-out", held_out],
        ["arithmetic", run, "--pick", "a=3,17,42", "b=1,2,4", "c=5,6,7"],
        ["turn", run, "--pick", "from=3,17,42,1", "to=2,4,5,6"],
    ):
        assert main(words_of) == 0
        read = found(run, words_of[0])
        assert read["command"] == f"python -m dcgan_dist.explore {' '.join(words_of)}"
        assert read["step"] == 20
    assert len(found(run, "walk")["figures"]) == 2
    assert len(found(run, "underfit")["measures"]) == 3
    assert (Path(run) / "explore" / "sheet.png").stat().st_size > 1000


def test_the_judge_is_taught_once_and_again_for_other_data(run: str) -> None:
    weights = Path(run) / "explore" / "judge-net.safetensors"
    assert main(["judge", run]) == 0
    before = weights.stat().st_mtime_ns
    assert main(["judge", run]) == 0
    assert weights.stat().st_mtime_ns == before
    facts = weights.with_suffix(".json")
    facts.write_text(facts.read_text().replace('"images": 600', '"images": 601'))
    assert main(["judge", run]) == 0
    assert weights.stat().st_mtime_ns > before


def test_labels_by_hand_judge_the_judge_and_choose_exemplars(run: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    said = {str(i): {"bright": i % 2, "lit": int(i < 6), "boxes": {}} for i in range(12)}
    labels.write_text(json.dumps(said))
    assert main(["judge", run, "--labels", str(labels)]) == 0
    names = [m["name"] for m in finding.read(run, "judge")["measures"]]  # type: ignore[index]
    assert "bright, right, generated, labelled by hand (12)" in names
    concepts = ["--a", "bright=1,lit=1", "--b", "bright=0,lit=1", "--c", "bright=0,lit=0"]
    assert main(["arithmetic", run, "--labels", str(labels), *concepts]) == 0


def test_wrong_uses_are_one_line(
    run: str, rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is not a run folder" in told(capsys, "walk", str(tmp_path))
    assert "no checkpoint at step 7" in told(capsys, "walk", run, "--step", "7")
    assert "give pictures that it has not seen" in told(capsys, "neighbours", run, "--held-out", rooms16)
    assert "does not exist" in told(capsys, "neighbours", run, "--held-out", str(tmp_path / "none"))
    assert "--pick wants a=3,17,42, b=3,17,42" in told(capsys, "arithmetic", run, "--pick", "a=1")
    assert "is not like a=3,17,42" in told(capsys, "arithmetic", run, "--pick", "1,2")
    assert "number 150 is not on the sheet" in told(capsys, "turn", run, "--pick", "from=150", "to=1")
    assert "not a list of numbers" in told(capsys, "turn", run, "--pick", "from=x", "to=1")
    assert "give all of --from, --to, or none" in told(capsys, "turn", run, "--from", "bright=1")
    assert "no object 'door' in the boxes of the data" in told(capsys, "forget", run, "--target", "door")
    assert "no layer '9@9' in the generator" in told(capsys, "forget", run, "--layer", "9@9")
    other = str(tmp_path / "other")
    build(Rooms(20, size=32), other, size=32, workers=1)
    assert "has pictures of 32 pixels" in told(capsys, "walk", run, "--data", other)
    assert "no attribute 'hat'" in told(capsys, "turn", run, "--from", "hat=1", "--to", "hat=0")


def test_a_damaged_judge_is_told(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", run]) == 0
    weights = Path(run) / "explore" / "judge-net.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert "is damaged" in told(capsys, "judge", run)
    weights.write_bytes(whole)


def test_the_report_holds_every_section_and_says_what_was_not_run(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["walk", run]) == 0
    (Path(run) / "probe").mkdir(exist_ok=True)
    probe = {"protocol": "10 labels per class", "command": "python -m x", "paper": {"dcgan": 22.48}}
    probe["results"] = [
        {"method": "dcgan", "labels": 100, "error": 7.25, "interval": 1.5, "interval_of": "draws"}
    ]
    (Path(run) / "probe" / "svhn.json").write_text(json.dumps(probe))
    (Path(run) / "probe" / "digits.json").write_text('{"results": 3}')
    out = tmp_path / "report.html"
    assert report([run, "--out", str(out)]) == 0
    assert "digits.json is not what it should be" in capsys.readouterr().err
    page = out.read_text()
    for section in SECTIONS:
        assert f'id="{section.key}"' in page
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    assert "7.25" in page
    assert "22.48" in page
    assert "python -m dcgan_dist.explore walk" in page
    assert f"-m dcgan_dist.train {run}/config.yaml --run.dir NEW" in page
    assert "Make it with <code>python -m dcgan_dist.probe cifar10" in page


def test_the_report_of_several_runs_gives_mean_and_spread(run: str, tmp_path: Path) -> None:
    runs = []
    for name, value in (("a", 0.2), ("b", 0.4)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text((Path(run) / "config.yaml").read_text())
        measure = finding.held("<odd> name", value, at_least=0.3)
        one = finding.Finding("turn", "Turn", "E12", [measure])
        finding.save(one, str(folder), step=1, command="c")
        runs.append(str(folder))
    out = tmp_path / "two.html"
    assert report([*runs, "--out", str(out)]) == 0
    page = out.read_text()
    assert "0.300 +- 0.141" in page
    assert "&lt;odd&gt; name" in page
    assert '<span class="missed">missed</span>' in page
    assert '<span class="met">met</span>' in page


def test_a_report_of_no_run_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report([str(tmp_path)]) == 2
    assert "is not a run folder: it has no config.yaml" in capsys.readouterr().err


def test_an_exported_generator_draws_the_same_anywhere(run: str, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert export.main([run, str(out)]) == 0
    sampler = dcgan_dist.load(run)
    session = onnxruntime.InferenceSession(out / "generator.onnx", providers=["CPUExecutionProvider"])
    for images in (1, 7):  # any batch, also one
        z = sampler.noise(images, seed=3)
        (drawn,) = session.run(None, {"z": z.numpy()})
        np.testing.assert_allclose(drawn, sampler(z).numpy(), atol=1e-5)
    weights = load_file(out / "generator.safetensors")
    assert torch.equal(weights["project.weight"], sampler.generator.project.weight)
    assert "project_norm.running_mean" in weights
    settings = json.loads((out / "config.json").read_text())
    assert (settings["z_size"], settings["image_size"], settings["step"]) == (16, 16, 20)
    card = (out / "README.md").read_text()
    assert "uniform(-1, 1, (16, 16))" in card
    assert "600 pictures of 16 pixels" in card


def test_export_without_the_packages_for_onnx_says_what_to_do(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert export.main([run, str(tmp_path / "x")]) == 2
    assert "pip install -c constraints.txt -e '.[onnx]', or give --no-onnx" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert export.main([run, str(tmp_path / "x"), "--no-onnx"]) == 0
    assert not (tmp_path / "x" / "generator.onnx").exists()
