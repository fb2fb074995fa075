"""FID and KID from features of a file that the user trusts, and no other."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dcgan_dist import evaluate, train
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks.world import World
from dcgan_dist.scores.inception import Inception, frechet_and_kernel
from tests.test_promises import words

CPU = torch.device("cpu")


class Means(nn.Module):
    """Stands for Inception: the means of four quadrants of each channel."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x.float(), [2, 2]).flatten(1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "means.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Means()), path)
    return path


def test_features_are_those_of_the_file(file: Path) -> None:
    net = Inception(str(file), hashlib.sha256(file.read_bytes()).hexdigest(), CPU)
    images = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)
    found = net.features(images, World.alone())
    assert found.shape == (70, 12)
    assert found[69, 0] == pytest.approx(images[69, :4, :4, 0].mean())


def test_a_file_that_is_not_the_pinned_one_is_not_opened(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there; give a local TorchScript file"):
        Inception(str(tmp_path / "none.pt"), None, CPU)
    with pytest.raises(
        ConfigError, match="inception_sha256 is None; set it to that of a file that you trust"
    ):
        Inception(str(file), None, CPU)
    other = tmp_path / "other.pt"
    other.write_bytes(b"no module")
    with pytest.raises(ConfigError, match="is no TorchScript module"):
        Inception(str(other), hashlib.sha256(b"no module").hexdigest(), CPU)


def test_fid_of_normal_sets_is_the_distance_of_their_moments() -> None:
    draw = torch.Generator().manual_seed(0)
    real = torch.randn(2000, 4, generator=draw)
    fake = torch.randn(2000, 4, generator=draw) * 2 + 1
    a, b = real.double(), fake.double()
    # the exact formula: |difference of means|^2 + tr(A + B - 2 (A B)^(1/2))
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).sqrt().real.sum()
    exact = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root
    found = frechet_and_kernel(real, fake)
    assert found["fid"] == pytest.approx(float(exact), rel=1e-4)
    assert found["fid"] == pytest.approx(4 + 4 * (1 - 2) ** 2, rel=0.1)
    same = frechet_and_kernel(real[:1000], real[1000:])
    assert same["fid"] < 0.05
    assert abs(same["kid"]) < 0.05 < found["kid"]
    assert frechet_and_kernel(real, fake) == found


def test_the_bytes_that_are_loaded_are_those_that_were_summed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is another by the time that torch would open it."""
    sound = file.read_bytes()
    load = torch.jit.load

    def swapped(given: object, **settings: object) -> object:
        file.write_bytes(b"another program")
        return load(given, **settings)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(torch.jit, "load", swapped)
    net = Inception(str(file), hashlib.sha256(sound).hexdigest(), CPU)
    assert net.features(np.zeros((1, 8, 8, 3), np.uint8), World.alone()).shape == (1, 12)


def test_a_run_folder_does_not_say_what_is_loaded(
    file: Path, rooms16: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(words(rooms16, run, "--train.steps=2")) == 0
    text = (run / "config.yaml").read_text()
    sum_ = hashlib.sha256(file.read_bytes()).hexdigest()
    text = text.replace("inception: null", f"inception: {file}")
    (run / "config.yaml").write_text(text.replace("inception_sha256: null", f"inception_sha256: {sum_}"))
    assert evaluate.main([str(run), "--images", "16"]) == 0
    (scores,) = (run / "scores").iterdir()
    assert "fid" not in scores.read_text()
    assert evaluate.main([str(run), "--images", "16", "--inception", str(file)]) == 2
    assert "inception_sha256 is None" in capsys.readouterr().err
    given = ["--inception", str(file), "--inception-sha256", sum_]
    assert evaluate.main([str(run), "--images", "16", *given]) == 0
    assert '"fid"' in scores.read_text()
