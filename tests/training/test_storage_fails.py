"""Where a run folder cannot be written: one line, a non-zero exit code, and nothing lost."""

import os
import subprocess
from pathlib import Path

import pytest

from dcgan_dist.checkpoints import checkpoint, writer
from dcgan_dist.train import main
from dcgan_dist.training.trainer import Trainer
from shards.storage import store
from tests import waiting
from tests.cluster.faultproxy import FaultProxy, Rule
from tests.test_promises import words

DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PAUSES_SECONDS", (0.05, 0.05))


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_ends_the_run_and_loses_nothing(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        run = disk / "run"
        arguments = [*words(rooms16, run), "--run.checkpoint_steps=2"]
        assert main([*arguments, "--train.steps=4"]) == 0
        before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(max(free.f_bavail * free.f_frsize - 60_000, 0)))
        assert main([*arguments, "--train.steps=400"]) == 2
        line = last_line(capsys)
        assert "could not be saved in 3 tries" in line
        assert "No space left on device" in line
        assert {path: path.read_bytes() for path in before} == before
        found = checkpoint.read_newest(str(run / "checkpoints"))
        assert found is not None
        assert found[0].step >= 4
        (disk / "filler").unlink()
        assert main([*arguments, "--train.steps=10"]) == 0
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_read_only_folder_ends_the_run_before_it_begins(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(rooms16, Path("/proc/none"))) == 2
    assert "/proc/none" in last_line(capsys)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_turns_read_only_ends_the_run_and_loses_nothing(
    rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "run" / "checkpoints"
    saved.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "none", str(saved)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    arguments = [*words(rooms16, tmp_path / "run"), "--run.checkpoint_steps=2"]
    check_weights = Trainer.check_weights

    def remount(how: str) -> bool:
        """False while a file there is being written."""
        return not subprocess.run(["mount", "-o", f"remount,{how}", str(saved)], check=False).returncode

    def turn_read_only(trainer: Trainer, step: int) -> None:
        check_weights(trainer, step)
        if step == 8:
            waiting.until(lambda: remount("ro"))

    try:
        assert main([*arguments, "--train.steps=4"]) == 0
        before = {path: path.read_bytes() for path in saved.iterdir()}
        monkeypatch.setattr(Trainer, "check_weights", turn_read_only)
        assert main([*arguments, "--train.steps=400"]) == 2
        assert "Read-only file system" in last_line(capsys)
        assert {path: path.read_bytes() for path in before} == before
        monkeypatch.undo()
        assert remount("rw")
        assert main([*arguments, "--train.steps=10"]) == 0
    finally:
        subprocess.run(["umount", str(saved)], check=False)


@pytest.mark.s3
def test_a_bucket_that_denies_writes_ends_the_run_and_loses_nothing(
    rooms16: str, faulty_folder: str, fault_proxy: FaultProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    url = store.join(faulty_folder, "run")
    own = [word for word in words(rooms16, Path("x")) if not word.startswith("--run.dir")]
    arguments = [*own, f"--run.dir={url}", "--run.checkpoint_steps=2"]
    assert main([*arguments, "--train.steps=4"]) == 0
    fault_proxy.rules(Rule("status", method="PUT", path="checkpoints/step-", status=403, body=DENIED))
    assert main([*arguments, "--train.steps=60"]) == 2
    line = last_line(capsys)
    assert "could not be saved in 3 tries" in line
    assert "AccessDenied" in line or "Access Denied" in line
    fault_proxy.rules()
    found = checkpoint.read_newest(store.join(url, "checkpoints"))
    assert found is not None
    assert found[0].step == 4
