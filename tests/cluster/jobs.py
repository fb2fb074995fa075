"""Training jobs on the test cluster: launch one, watch it, break into it, and compare its end with a run that
nothing broke into. Kept out: pytest, so that the benchmark of interruptions can use it too.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from dcgan_dist.checkpoints import checkpoint
from tests.cluster.slurm import Cluster

ROOT = Path(__file__).parent.parent.parent
ENDLESS = 10**6
"""Steps of a run that is to be broken into; `finish` gives it an end."""
NODES = 4


def launch(cluster: Cluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python launch/slurm.py WORDS` on the cluster's login node."""
    return subprocess.run(
        [sys.executable, "launch/slurm.py", words[0], "--folder", str(folder), *words[1:]],
        cwd=ROOT,
        env=os.environ | cluster.environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def settings(data: str, run: Path, steps: int = ENDLESS) -> list[str]:
    """A tiny net, logged at every step and saved every ten."""
    given = {
        "data.url": data,
        "data.batch_images": "16",
        "model.net": "tiny16",
        "run.dir": str(run),
        "run.log_steps": "1",
        "run.sample_images": "4",
        "run.checkpoint_steps": "10",
        "train.steps": str(steps),
        "train.device": "cpu",
        "train.precision": "float64",
    }
    return [f"--{name}={value}" for name, value in given.items()]


@dataclass(frozen=True)
class Training:
    """A training job on all nodes of the cluster."""

    cluster: Cluster
    data: str
    folder: Path
    job: str

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.folder / "run"

    @property
    def launched(self) -> Path:
        """The launcher's folder of it."""
        return next((self.folder / "slurm").iterdir())

    @property
    def steps(self) -> list[int]:
        """The steps that are logged; the last line may be under way."""
        path = self.run / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line)["step"] for line in text.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def saved(self) -> int:
        """The step of the newest checkpoint, 0 without one."""
        found = checkpoint.read_newest(str(self.run / "checkpoints"))
        return found[0].step if found else 0

    @property
    def restarts(self) -> int:
        """How often Slurm has started the job again."""
        shown = self.cluster.tell("scontrol", "-o", "show", "job", self.job)
        return int(shown.partition("Restarts=")[2].split()[0])

    @property
    def status(self) -> str:
        """What the launcher tells of it."""
        return launch(self.cluster, self.folder / "slurm", "status").stdout

    def wait_for_steps(self, steps: int) -> None:
        """Until that many steps of this life are logged."""
        enough = steps + max(self.steps, default=0)
        self.cluster.wait_for(f"step {enough}", lambda: max(self.steps, default=0) >= enough, seconds=300)

    def wait_for(self, *states: str, seconds: float = 300) -> None:
        """Until Slurm gives it one of these states."""
        self.cluster.wait_for(
            f"{states} of {self.job}", lambda: self.cluster.state(self.job) in states, seconds=seconds
        )

    def end_at(self, steps: int) -> None:
        """Give the run its end, before the job starts again."""
        path = self.launched / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config["train"]["steps"] = steps
        path.write_text(yaml.safe_dump(config))

    def finish(self) -> None:
        """Let the requeued job make ten more steps and end."""
        self.end_at(self.saved + 10)
        self.cluster.start_now(self.job)
        self.wait_for("COMPLETED", "FAILED")

    def differences(self) -> list[str]:
        """The weights that differ from those of a run that nothing broke into; double and lost steps too."""
        last = self.saved
        unbroken = self.folder / "unbroken"
        words = ["--cluster", "local", "--nodes", str(NODES), *settings(self.data, unbroken, last)]
        done = launch(self.cluster, self.folder / "local", "train", *words)
        assert done.returncode == 0, done.stderr
        here, there = (checkpoint.read_newest(str(run / "checkpoints")) for run in (self.run, unbroken))
        assert here is not None
        assert there is not None
        differ = [] if self.steps == list(range(1, last + 1)) else ["steps"]
        for part, tensors in there[1].items():
            differ += [
                f"{part}.{name}"
                for name, value in tensors.items()
                if not torch.equal(here[1][part][name], value)
            ]
        return differ


def start(cluster: Cluster, data: str, folder: Path, *words: str) -> Training:
    """Launch a training on all nodes."""
    given = ["--nodes", str(NODES), *words, *settings(data, folder / "run")]
    done = launch(cluster, folder / "slurm", "train", *given)
    assert done.returncode == 0, done.stderr
    return Training(cluster, data, folder, done.stdout.split()[1])


Interruption = Callable[..., None]
"""Breaks into a training and returns once Slurm has it pending; if it is the `last`, the run gets its end."""


def signal_it(training: Training, *, last: bool) -> None:
    """A signal to all tasks, as any user may send."""
    training.cluster.tell("scancel", "--signal=USR2", training.job)
    training.wait_for("PENDING")


def requeue_it(training: Training, *, last: bool) -> None:
    """`scontrol requeue`, as an administrator may do."""
    training.cluster.tell("scontrol", "requeue", training.job)
    training.wait_for("PENDING")


def preempt_it(training: Training, *, last: bool) -> None:
    """A job of a higher partition takes the nodes, for as long as the run needs to get its end."""
    words = ("sbatch", "--parsable", "-p", "high", "-N", str(NODES), "--exclusive", "-o", "/dev/null")
    other = training.cluster.tell(*words, "--wrap", "sleep 600")
    training.wait_for("PENDING")
    training.cluster.wait_for("the preempting job", lambda: training.cluster.state(other) == "RUNNING")
    if last:
        training.end_at(training.saved + 10)
    training.cluster.tell("scancel", other)


def crash_a_node(training: Training, *, last: bool) -> None:
    """SIGKILL to a node's daemon and its ranks; it comes back when Slurm has given the job up."""
    node = training.cluster.nodes[2]
    training.cluster.crash_node(node)
    training.wait_for("PENDING")
    if last:
        training.end_at(training.saved + 10)
    training.cluster.start_node(node)
