"""What one task of a job does: become a rank of the training, or a part of the dataset's build.

submitit pickles a task by its name, so this module must be found on every node, as the trainer must.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import submitit

TRAINER = "dcgan_dist.train"
VISIBLE = "CUDA_VISIBLE_DEVICES"
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Task:
    """What every task of a job does: become `python WORDS`, as one rank where there are many."""

    words: tuple[str, ...]
    gpus: str | None = None
    """The user's own VISIBLE, for a job on this machine, where submitit sets another."""

    def __call__(self) -> int:
        here = submitit.JobEnvironment()
        ranks, rank = here.num_tasks, here.global_rank
        where = os.environ.get("SLURMD_NODENAME", here.hostname)
        print(
            f"attempt {os.environ.get('SLURM_RESTART_COUNT', 0)}: task {rank} of {ranks} on {where}",
            flush=True,
        )
        environment = dict(os.environ)
        if ranks > 1:
            local = {"LOCAL_RANK": here.local_rank, "LOCAL_WORLD_SIZE": ranks // here.num_nodes}
            named = {"RANK": rank, "WORLD_SIZE": ranks} | local
            environment |= {name: str(value) for name, value in named.items()}
        words = [sys.executable, "-u", *self.words]
        if here.cluster == "slurm":
            # Until the trainer takes them; it would die of one while it imports torch.
            if self.words[1] == TRAINER:
                signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            os.execve(sys.executable, words, environment)  # noqa: S606
        environment.pop(VISIBLE, None)
        if self.gpus is not None:
            environment[VISIBLE] = self.gpus
        # On this machine nobody asks for the exit code of a task, so it is handed back as a result.
        child = subprocess.Popen(words, env=environment, start_new_session=True)
        for number in STOPS:
            signal.signal(number, lambda number, _: child.send_signal(number))
        return child.wait()
