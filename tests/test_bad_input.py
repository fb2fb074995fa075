"""Each wrong use of `train` ends in one line on stderr, exit code 2, and nothing lost."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dcgan_dist.train import main
from shards.building.build import build
from shards.sources.drawn.rooms import Rooms
from tests.test_promises import words


def told(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_missing_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, words(str(tmp_path / "nowhere"), tmp_path / "run"))
    assert "nowhere does not exist" in line
    assert "python -m shards build" in line


def test_an_empty_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty is empty" in told(capsys, words(str(tmp_path / "empty"), tmp_path / "run"))


def test_no_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small(tmp_path)
    (out / "index.json").unlink()
    line = told(capsys, words(str(out), tmp_path / "run"))
    assert "no index.json; run: python -m shards index" in line


def test_an_index_that_does_not_match_its_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small(tmp_path)
    shard = out / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    line = told(capsys, words(str(out), tmp_path / "run"))
    assert "shard-000000.tar has" in line
    assert "index.json says" in line
    shard.unlink()
    assert "shard-000000.tar is in index.json but not there" in told(
        capsys, words(str(out), tmp_path / "run")
    )


def test_a_block_table_of_another_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small(tmp_path)
    data = bytearray((out / "blocks.npy").read_bytes())
    data[-1] ^= 1
    (out / "blocks.npy").write_bytes(data)
    assert "blocks.npy" in told(capsys, words(str(out), tmp_path / "run"))


def test_pictures_of_another_size(rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, words(rooms16, tmp_path / "run", "--model.net=small32"))
    assert "draws 32x32 pictures but" in line
    assert "--size 32" in line


def test_a_batch_larger_than_the_dataset(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told(capsys, words(rooms16, tmp_path / "run", "--data.batch_images=601"))
    assert "data.batch_images=601 is more than the 600 pictures" in line


def test_a_batch_that_does_not_divide(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    line = told(capsys, words(rooms16, tmp_path / "run"))
    assert "data.batch_images=16 does not divide over 3 ranks; nearest that do: 15 and 18 images" in line


def test_ranks_above_zero_leave_the_telling_to_rank_zero(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert main(words(rooms16, tmp_path / "run")) == 2
    assert capsys.readouterr().err == ""


def test_a_run_folder_of_another_run(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(rooms16, tmp_path / "run", "--train.steps=2")) == 0
    line = told(capsys, words(rooms16, tmp_path / "run", "--optim.lr=1e-4", "--train.seed=7"))
    assert "holds a run with another optim.lr, train.seed; choose another run.dir" in line


def test_a_dataset_that_became_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(tmp_path / "rooms")
    build(Rooms(40, size=16), url, size=16, workers=1)
    assert main(words(url, tmp_path / "run", "--train.steps=2")) == 0
    shutil.rmtree(url)
    build(Rooms(40, size=16, seed=1), url, size=16, workers=1)
    line = told(capsys, words(url, tmp_path / "run", "--train.steps=4"))
    assert f"was trained on other pictures than {url} now holds" in line


def test_a_run_folder_that_cannot_be_written(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    line = told(capsys, words(rooms16, tmp_path / "file" / "run"))
    assert str(tmp_path / "file" / "run") in line


def test_a_checkpoint_of_another_network(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(words(rooms16, run, "--train.steps=2")) == 0
    # The settings say otherwise: somebody edited config.yaml.
    text = (run / "config.yaml").read_text()
    other = "z16 k5 g 16@4 12@8 3@16 d 8@8 16@4"
    (run / "config.yaml").write_text(text.replace("tiny16", other))
    line = told(capsys, words(rooms16, run, f"--model.net={other}"))
    assert "checkpoint of another network: g.convs.0.weight is (16, 8, 5, 5)" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, words(rooms16, tmp_path / "run", "--train.device=cuda"))
    assert "torch sees no accelerator; choose auto" in line


def test_a_config_that_is_not_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read as a config file" in told(capsys, [str(tmp_path)])
    (tmp_path / "x.yaml").write_text("[" * 9999)
    assert "x.yaml: nested too deep" in told(capsys, [str(tmp_path / "x.yaml")])
    (tmp_path / "x.yaml").write_text("optim:\n  lrr: 1\n")
    assert "x.yaml:2: unknown setting optim.lrr" in told(capsys, [str(tmp_path / "x.yaml")])


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    rooms16: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    assert main(words(rooms16, run, "--train.steps=4", "--run.checkpoint_steps=2")) == 0
    part = run / "checkpoints" / "step-00000004.d.safetensors"
    data = bytearray(part.read_bytes())
    data[-9] ^= 1
    part.write_bytes(data)
    assert main(words(rooms16, run, "--train.steps=4")) == 0
    assert "step-00000004.d.safetensors: damaged" in caplog.text
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_fewer_steps_than_are_done_get_a_word(
    rooms16: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(words(rooms16, tmp_path / "run", "--train.steps=2")) == 0
    assert "nothing is trained" not in caplog.text
    assert main(words(rooms16, tmp_path / "run", "--train.steps=1")) == 0
    assert "the run is at step 2, past the 1 that are asked for: nothing is trained" in caplog.text


def small(tmp_path: Path) -> Path:
    out = tmp_path / "set"
    build(Rooms(40, size=16), str(out), size=16, shard_images=20, workers=1)
    return out
