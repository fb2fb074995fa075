"""How many CPUs a rank is given, by what Slurm says of its nodes."""

import argparse
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the extra slurm brings submitit")

from dcgan_dist.slurm.command_line import make_parser
from dcgan_dist.slurm.cpus import cpus_per_task
from dcgan_dist.slurm.errors import LaunchError

NODES = {
    "": ["cpu*|128|(null)", "gpu|64|gpu:h100:8(S:0-1)", "gpu|96|gpu:a100:8"],
    "gpu": ["gpu|64|gpu:h100:8(S:0-1)", "gpu|96|gpu:a100:8"],
    "mixed": ["mixed|256|(null)", "mixed|12|gpu:2"],
    "odd": ["odd|n/a|gpu:2", "odd"],
}


@pytest.fixture(autouse=True)
def sinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that tells of NODES; an unknown partition has none."""
    cases = "\n".join(
        f"*'-e {f'-p {name} ' * bool(name)}-o %P|%c|%G') printf '%s\\n' {' '.join(map(repr, rows))};;"
        for name, rows in NODES.items()
    )
    (tmp_path / "sinfo").write_text(f'#!/bin/sh\ncase "$*" in\n{cases}\nesac\n')
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SBATCH_PARTITION", raising=False)


def train(*words: str) -> argparse.Namespace:
    return make_parser().parse_args(["train", *words])


@pytest.mark.parametrize(
    ("words", "extra", "cpus"),
    [
        ("--gpus-per-node 8", {"partition": "gpu"}, 8),
        ("--gpus-per-node 8 --ranks-per-node 16", {"partition": "gpu"}, 4),
        ("--gpus-per-node 2", {"partition": "mixed"}, 6),
        ("--gpus-per-node 2 --ranks-per-node 50", {"partition": "mixed"}, 1),
        ("--gpus-per-node 2", {"partition": "unknown"}, 8),
        ("--gpus-per-node 2", {"partition": "odd"}, 8),
        ("--gpus-per-node 32", {}, 4),
        ("--gpus-per-node 32 --cluster local", {}, 8),
        ("--ranks-per-node 2", {"partition": "mixed", "gres": "gpu:2"}, 6),
        ("--ranks-per-node 2", {"partition": "mixed", "gpus-per-task": "1"}, 6),
        ("--ranks-per-node 2", {"partition": "mixed", "gres": "disk:2"}, None),
        ("--ranks-per-node 2", {"partition": "gpu"}, None),
        ("--gpus-per-node 8", {"partition": "gpu", "cpus-per-gpu": "12"}, None),
        ("--gpus-per-node 8 --cpus-per-task 12", {"partition": "gpu"}, 12),
        ("--ranks-per-node 2 --cpus-per-task 128", {"partition": "mixed"}, 128),
    ],
)
def test_a_rank_of_a_gpu_has_eight_or_what_fits(words: str, extra: dict[str, str], cpus: int | None) -> None:
    assert cpus_per_task(train(*words.split()), extra) == cpus


def test_the_partition_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "mixed")
    assert cpus_per_task(train("--gpus-per-node", "2"), {}) == 6


@pytest.mark.parametrize(
    ("ranks", "way_out"),
    [(8, "no node of the partition has more than 96; give 12 at most"), (97, "fewer ranks")],
)
def test_more_than_any_node_has_is_refused(ranks: int, way_out: str) -> None:
    given = train("--gpus-per-node", "8", "--ranks-per-node", str(ranks), "--cpus-per-task", "13")
    with pytest.raises(LaunchError, match=rf"^--cpus-per-task=13: .*{way_out}"):
        cpus_per_task(given, {"partition": "gpu"})
