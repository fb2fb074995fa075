"""A password in the URL of the data: in no file that a run, a launch or a report leaves, and in no output.

Only what a job needs to go on holds it: config.yaml, which is then for its owner alone.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dcgan_dist import evaluate, export, sample, train
from dcgan_dist.config.__main__ import main as check_config
from dcgan_dist.explore.__main__ import main as explore
from dcgan_dist.probe.__main__ import main as probe
from dcgan_dist.report.__main__ import main as report
from shards.__main__ import main as shards
from tests.shards.storage.test_http import site  # noqa: F401
from tests.test_promises import words

ROOT = Path(__file__).parent.parent
SECRET = "p4ssw0rd"


def holders(folder: Path) -> list[str]:
    """Files below `folder` that hold the secret, each with its mode."""
    return sorted(
        f"{path.relative_to(folder)} {path.stat().st_mode & 0o777:o}"
        for path in folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    )


@pytest.fixture
def url(site: str) -> str:  # noqa: F811
    return site.replace("http://", f"http://bob:{SECRET}@")


def test_a_run_and_all_that_is_made_of_it_hold_no_password(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    given = words(url, tmp_path / "run", "--train.steps=4", "--eval.steps=4", "--eval.images=16")
    assert check_config(given) == 0
    assert train.main(given) == 0
    assert train.main([*given, "--train.steps=6"]) == 0  # it goes on with the password
    assert sample.main([out, "--out", str(tmp_path / "x.png")]) == 0
    assert evaluate.main([out, "--images", "16"]) == 0
    assert explore(["walk", out, "--data", url]) == 0
    assert probe(["imagefolder", out, "--data", url]) == 2
    assert export.main([out, str(tmp_path / "model"), "--no-onnx"]) == 0
    assert report([out]) == 0
    assert holders(tmp_path) == ["run/config.yaml 600"]
    said = capfd.readouterr()
    assert "bob" not in said.out + said.err
    assert "http://***@127.0.0.1" in (tmp_path / "run" / "report.html").read_text()


def test_nor_does_any_refusal(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for more in (
        ["--data.batch_images=601"],
        ["--model.net=small32"],
        ["--eval.steps=4", "--eval.images=400"],
        [f"--data.url={url}/none"],
        [f"--run.dir={url}"],
        [f"--train.steps={url}"],
        [url],
        ["--url", url],
    ):
        assert train.main(words(url, tmp_path / "run", *more)) == 2
    for command in (sample.main, evaluate.main, report):
        assert command([url]) == 2
    assert export.main([url, str(tmp_path / "x")]) == 2
    assert explore(["walk", url]) == 2
    assert probe(["digits", url]) == 2
    with pytest.raises(SystemExit):
        sample.main(["run", url])
    assert shards(["build", "webdataset", f"{url}/none.tar", str(tmp_path / "y")]) == 2
    assert shards(["build", "webdataset", url, str(tmp_path / "z"), "--size", "8"]) == 0
    assert holders(tmp_path) == []
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err
    assert said.err.count("\n") >= 14


def test_a_launch_keeps_it_from_all_but_its_user(url: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra slurm")
    given = words(url, tmp_path / "run", "--train.steps=2")
    for place, found in (
        (["--dry-run"], []),
        (["--cluster", "local"], ["run/config.yaml 600", "slurm/NAME/config.yaml 600"]),
    ):
        done = subprocess.run(
            [sys.executable, "launch/slurm.py", "train", *place, "--folder", str(tmp_path / "slurm"), *given],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert (done.returncode == 0) == bool(found) or not found, done.stderr
        assert SECRET not in done.stdout + done.stderr
        named = [
            "/".join("NAME" if part.startswith("train-") else part for part in name.split("/"))
            for name in holders(tmp_path)
        ]
        assert named == found
    (launch,) = (tmp_path / "slurm").iterdir()
    assert launch.stat().st_mode & 0o777 == 0o700
    assert "bob" not in (tmp_path / "run" / "launches" / f"{launch.name}.json").read_text()


def test_an_error_of_our_own_making_tells_no_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: object) -> None:
        raise RuntimeError(f"no plan of {url}")

    monkeypatch.setattr("dcgan_dist.library.check_data", fails)
    assert train.main(words(url, tmp_path / "run")) == 1
    assert "RuntimeError: no plan of http://***@127.0.0.1" in capfd.readouterr().err
