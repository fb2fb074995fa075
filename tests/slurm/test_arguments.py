"""Which words are settings, which are sbatch's, and numbers that make no job."""

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from dcgan_dist.slurm.arguments import check_gpus, check_time, split_words
from dcgan_dist.slurm.errors import LaunchError


def test_settings_have_a_dot_and_all_else_is_slurms() -> None:
    settings, extra = split_words(
        ["--optim.lr", "1e-4", "--account=a", "--exclusive", "--train.steps=3", "--mem", "64G"]
    )
    assert settings == ["--optim.lr=1e-4", "--train.steps=3"]
    assert extra == {"account": "a", "exclusive": True, "mem": "64G"}


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("2", 120), ("1:30", 90), ("0:2:5", 125), ("1-0", 86400), ("0-0:1", 60), ("1-1:1:1", 90061)],
)
def test_a_time_limit_is_longer_than_its_warning(limit: str, seconds: int) -> None:
    check_time(limit, seconds - 1)
    with pytest.raises(LaunchError, match="is over before its warning"):
        check_time(limit, seconds)


def test_a_rank_has_one_gpu_of_its_own() -> None:
    for sound in ({}, {"gpus-per-task": "1"}, {"gpus-per-task": "h100:1"}, {"gpu-bind": "verbose,single:1"}):
        check_gpus(sound)
    with pytest.raises(LaunchError, match=r"^--gpus-per-task=h100:2: a rank computes on one GPU"):
        check_gpus({"gpus-per-task": "h100:2"})
    for bind in ("closest", "verbose,closest"):
        with pytest.raises(
            LaunchError, match=rf"^--gpu-bind={bind} may give two ranks one GPU; give single:1"
        ):
            check_gpus({"gpu-bind": bind})
