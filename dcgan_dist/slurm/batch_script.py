"""The batch script of a job: how its ranks meet, what becomes of it at its end, and the text around both.

The text is submitit's. It has no public way to show what it would submit, so its two private names,
`_make_sbatch_string` and the module `submitit.core._submit`, are used here and nowhere else;
`tests/slurm/test_batch_script.py` compares the text with what submitit submits.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import _make_sbatch_string

# Below the ports that the kernel hands out, and nobody listens there.
FREE_PORT = (
    "from random import sample; from socket import socket; "
    "print(next(p for p in sample(range(15000, 32000), 99) if socket().connect_ex(('127.0.0.1', p))))"
)
MEET = (
    'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    f"export MASTER_PORT=$({shlex.quote(sys.executable)} -c {shlex.quote(FREE_PORT)})",
)
# srun has forgotten the CPUs of a task since 22.05.
BEGIN = (
    '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
    'echo "attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST ${MASTER_PORT:-}"',
)
END = """\
code=$? next=ended count={folder}/failures.$SLURM_JOB_ID
failures=$(cat "$count" 2>/dev/null || echo 0)
case $code in
    0 | 2) ;;
    75 | 143) next=requeued failures=0 ;;
    *) failures=$((failures + 1)) next=requeued
       [ "$failures" -le {max_failures} ] || next="failed $failures times in a row, not requeued" ;;
esac
echo "$failures" >"$count"
job=${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}
# A job that is being cancelled, or that Slurm requeues by itself, is no longer RUNNING.
state=$(squeue -h -j "$job" -o %T)
[ "$state" = RUNNING ] || next="left to Slurm: $state"
echo "$job attempt ${{SLURM_RESTART_COUNT:-0}} exit $code $(date -Is) $next" >>{folder}/attempts
[ "$next" != requeued ] || {{ scontrol requeue "$job" && sleep 60; }}
exit $code"""


def text(folder: Path, parts: int | None, options: Mapping[str, Any]) -> str:
    """The script as submitit will submit it; `parts` is the number of tasks of an array."""
    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)])
    return _make_sbatch_string(command=command, folder=folder, map_count=parts, **options)
