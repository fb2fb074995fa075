"""A run goes on with its own settings, in its own folder, from its own checkpoints, or not at all."""

import json
import shutil
from pathlib import Path

import pytest

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.train import main
from tests.processes import run_ranks
from tests.test_bad_input import told
from tests.test_promises import losses, words


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_of_other_settings_is_refused_without_config_yaml(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(words(rooms16, out, "--train.steps=4", "--optim.lr=1e-3")) == 0
    (out / "config.yaml").unlink()
    line = told(capsys, words(rooms16, out, "--train.steps=8", "--train.seed=7"))
    assert f"run.dir={out}: step-00000004 is of a run with another optim.lr, train.seed" in line
    assert run_ranks(main, 2, words(rooms16, out, "--train.steps=8")) == [2, 2]
    assert checkpoint.steps(str(out / "checkpoints")) == [4]
    assert not (out / "config.yaml").exists()
    assert main(words(rooms16, out, "--train.steps=8", "--optim.lr=1e-3")) == 0


def test_a_checkpoint_that_came_from_another_run_is_refused(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert main(words(rooms16, one, "--train.steps=2")) == 0
    assert main(words(rooms16, other, "--train.steps=4", "--optim.lr=1e-3")) == 0
    for path in (other / "checkpoints").iterdir():
        shutil.copy(path, one / "checkpoints")
    line = told(capsys, words(rooms16, one, "--train.steps=6"))
    assert "step-00000004 is of a run with another optim.lr" in line


def test_a_setting_that_an_older_version_did_not_know_had_its_default(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(words(rooms16, out, "--train.steps=2")) == 0
    manifest = out / "checkpoints" / "step-00000002.json"
    fields = json.loads(manifest.read_text())
    del fields["config"]["model"]["head"]
    fields["config"]["model"]["of_last_year"] = 1
    manifest.write_text(json.dumps(fields))
    assert main(words(rooms16, out, "--train.steps=4")) == 0


@pytest.mark.parametrize("found", [None, 3, {}, {"model": 3}])
def test_a_manifest_without_settings_is_refused_in_one_line(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], found: object
) -> None:
    out = tmp_path / "run"
    assert main(words(rooms16, out, "--train.steps=2")) == 0
    manifest = out / "checkpoints" / "step-00000002.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"config": found}))
    assert "step-00000002 is of a run with another" in told(capsys, words(rooms16, out, "--train.steps=4"))


def test_the_configuration_of_a_copy_asks_which_folder_is_meant(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, branch = tmp_path / "run", tmp_path / "branch"
    assert main(words(rooms16, out, "--train.steps=4")) == 0
    shutil.copytree(out, branch)
    before = everything(out), everything(branch)
    line = told(capsys, [str(branch / "config.yaml"), "--train.steps=8"])
    assert f"{branch}/config.yaml lies in a run folder, but its run.dir={out} is another" in line
    assert f"--run.dir {branch} to go on here, or --run.dir {out} to go on there" in line
    assert (everything(out), everything(branch)) == before
    assert main([str(branch / "config.yaml"), "--train.steps=8", f"--run.dir={branch}"]) == 0
    assert everything(out) == before[0]
    assert [line["step"] for line in losses(branch)] == list(range(1, 9))
    assert main([str(out / "config.yaml"), "--train.steps=6"]) == 0


def test_the_configuration_of_a_moved_run_asks_too(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, moved = tmp_path / "run", tmp_path / "moved"
    assert main(words(rooms16, out, "--train.steps=2")) == 0
    out.rename(moved)
    monkeypatch.chdir(moved)
    assert "--run.dir . to go on here" in told(capsys, ["config.yaml", "--train.steps=4"])
    assert main(["config.yaml", "--train.steps=4", "--run.dir", "."]) == 0
    assert not out.exists()


def test_a_configuration_that_lies_elsewhere_names_its_run(rooms16: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(words(rooms16, out, "--train.steps=2")) == 0
    shutil.copy(out / "config.yaml", tmp_path / "mine.yaml")
    assert main([str(tmp_path / "mine.yaml"), "--train.steps=4"]) == 0
    assert len(losses(out)) == 4


def test_epochs_without_a_step_are_refused(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word for word in words(rooms16, tmp_path / "run") if not word.startswith("--train.steps")]
    line = told(capsys, [*arguments, "--train.epochs=0.02"])
    assert "train.epochs=0.02 gives no step, for an epoch has 37; raise it, or say train.steps" in line
    assert not (tmp_path / "run").exists()


def test_a_run_with_nothing_left_to_do_says_so(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(rooms16, tmp_path / "run", "--train.steps=4")) == 0
    assert "nothing left" not in capsys.readouterr().out
    for steps in (4, 2):
        assert main(words(rooms16, tmp_path / "run", f"--train.steps={steps}")) == 0
        told = capsys.readouterr().out
        assert f"nothing left to do: the run is at step 4, and {steps} are asked for" in told
