"""A wrong use is one line."""

from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from tests.slurm.launching import told
from tests.test_promises import words


def test_a_wrong_use_is_one_line(rooms16: str, tmp_path: Path) -> None:
    train = ["train", "--folder", str(tmp_path / "slurm"), *words(rooms16, tmp_path / "run")]
    assert "no sbatch on this machine; log in to the cluster, or use --cluster local" in told(*train)
    assert "does not divide over 3 ranks" in told(*train, "--nodes", "3")
    assert "nowhere does not exist" in told(*train, "--data.url", str(tmp_path / "nowhere"))
    assert "--time=1 is over before its warning, 120 s ahead" in told(*train, "--time", "1")
    assert "-p is not known; settings are --group.name" in told(*train, "-p", "main")
    assert "invalid choice: 'moon'" in told(*train, "--cluster", "moon")
    assert "cannot be read as a config file" in told(*train, "--config", "nothing.yaml")
    assert "--optim.lr=1: a dataset has no settings" in told("shards", "--optim.lr=1", "--", "rooms", "x")
    assert "the following arguments are required: SOURCE" in told("shards")
    assert "--part and --merge are the launcher's" in told("shards", "--", "rooms", "x", "--part", "1/2")
    for command in ("status", "logs", "cancel", "requeue"):
        assert "7: nothing of it in --folder" in told(command, "--folder", str(tmp_path), "7")
    assert "--fast is not known; see: python launch/slurm.py status --help" in told("status", "--fast")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_made_are_one_line(rooms16: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    local = ["train", "--cluster", "local"]
    data = words(rooms16, tmp_path / "run")
    assert "give one that all nodes share" in told(*local, "--folder", str(tmp_path / "file" / "x"), *data)
    data = words(rooms16, tmp_path / "file" / "run")
    assert str(tmp_path / "file") in told(*local, "--folder", str(tmp_path / "slurm"), *data)
