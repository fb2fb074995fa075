"""Which words are settings, which are sbatch's, and numbers that make no job."""

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from dcgan_dist.slurm.arguments import check_time, split_words
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
