"""Jobs on a Slurm cluster: `python launch/slurm.py train --nodes 4 --gpus-per-node 8 --config FILE`.

submitit writes and submits the batch script; one srun task per rank then becomes the trainer itself, so that
signals and exit codes are the trainer's own. The script decides by the exit code: 75 is requeued, 0 and 2 end
the job, anything else is requeued a few times. A login node needs no torch. Kept out: all that a rank does.
"""

import argparse
import difflib
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

try:
    import submitit
    from submitit.core.utils import FailedJobError, UncompletedJobError
    from submitit.helpers import clean_env
    from submitit.slurm.slurm import _make_sbatch_string

    import dcgan_dist  # noqa: F401
except ImportError as error:
    print(
        f"error: the launcher needs {error.name}: pip install -c constraints.txt -e '.[slurm]'",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config, check, check_data, dump, read_config
from dcgan_dist.run_folder.same_run import check_same_run
from shards import ShardsError
from shards.__main__ import check_build
from shards.command import command
from shards.errors import ToldError
from shards.redact import is_secret, redacted
from shards.storage import store
from shards.storage.paths import argument

MERGE = "merge"
TRAINER = "dcgan_dist.train"
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
OURS = [
    "array",
    "dependency",
    "error",
    "gpus-per-task",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
    "wrap",
]
"""Options of sbatch that the launcher sets itself."""

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


class LaunchError(ToldError):
    """The job cannot be launched as asked; one line that says why, and the way out."""


@dataclass(frozen=True)
class Task:
    """What every task of a job does: become `python WORDS`, as one rank where there are many."""

    words: tuple[str, ...]

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
        # On this machine nobody asks for the exit code of a task, so it is handed back as a result.
        child = subprocess.Popen(words, env=environment, start_new_session=True)
        for number in STOPS:
            signal.signal(number, lambda number, _: child.send_signal(number))
        return child.wait()


@dataclass(frozen=True)
class Job:
    """One Slurm job, an array where it has several `tasks`; `options` are submitit's."""

    tasks: tuple[Task, ...]
    options: Mapping[str, Any]

    def script(self, folder: Path) -> str:
        """The batch script, as submitit will submit it."""
        command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)])
        parts = len(self.tasks) if len(self.tasks) > 1 else None
        return _make_sbatch_string(command=command, folder=folder, map_count=parts, **self.options)


Extra = Mapping[str, str | bool]
"""Options of sbatch as the user gave them, without the dashes."""


def make_job(
    tasks: Sequence[Task],
    folder: Path,
    extra: Extra,
    *,
    before: Sequence[str],
    max_failures: int,
    **options: Any,
) -> Job:
    """A job whose script requeues by exit code; what the user gave wins over every default."""
    number = "%A_%a" if len(tasks) > 1 else "%j"
    own = {"requeue": True, "output": str(folder / f"{number}_batch.out")}
    common = {
        "time": None,
        "wckey": None,
        "stderr_to_stdout": True,
        "setup": [*before, *BEGIN],
        "teardown": END.format(folder=shlex.quote(str(folder)), max_failures=max_failures).splitlines(),
        "additional_parameters": own | {name.replace("-", "_"): value for name, value in extra.items()},
    }
    return Job(tuple(tasks), common | options)


def plan_train(given: argparse.Namespace, folder: Path, config: Config, extra: Extra) -> list[Job]:
    """The one job of a training run."""
    name = shlex.quote(given.interface or "")
    network = [f"export NCCL_SOCKET_IFNAME={name} GLOO_SOCKET_IFNAME={name}"] if given.interface else []
    job = make_job(
        [Task(("-m", TRAINER, str(folder / "config.yaml")))],
        folder,
        extra,
        before=[*MEET, *network],
        max_failures=given.max_failures,
        job_name="dcgan",
        nodes=given.nodes,
        ntasks_per_node=ranks_of(given) // given.nodes,
        gpus_per_node=given.gpus_per_node or None,
        signal_delay_s=given.signal_seconds,
        # Rank 0 may still be saving when the others have left; a rank that was lost ends the rest in time.
        srun_args=[
            "--kill-on-bad-exit=0",
            f"--wait={int(config.train.timeout_seconds)}",
            "--open-mode=append",
        ],
    )
    return [job]


def plan_shards(given: argparse.Namespace, folder: Path, extra: Extra) -> list[Job]:
    """An array that builds the parts, and a job that merges them when all have ended, however they did."""
    build = ("-m", "shards", "build", *given.words)
    parts = [Task((*build, "--part", f"{part}/{given.parts}")) for part in range(1, given.parts + 1)]
    shared = {"before": (), "max_failures": given.max_failures, "nodes": 1, "ntasks_per_node": 1} | {
        "srun_args": ["--open-mode=append"]
    }
    at_once = given.at_once or given.parts
    return [
        make_job(parts, folder, extra, job_name="shards", array_parallelism=at_once, **shared),
        make_job([Task((*build, "--merge", str(given.parts)))], folder, extra, job_name=MERGE, **shared),
    ]


def ranks_of(given: argparse.Namespace) -> int:
    """One rank per GPU, or as many per node as asked; a debugger sees a single one."""
    return 1 if given.cluster == "debug" else given.nodes * (given.ranks_per_node or given.gpus_per_node or 1)


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, str | bool]]:
    """What the launcher does not know itself: settings, which have a dot, and options of sbatch."""
    settings: list[str] = []
    extra: dict[str, str | bool] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise LaunchError(
                f"{word} is not known; settings are --group.name VALUE, options of sbatch --long-name"
            )
        if not equals and rest and not rest[0].startswith("--"):
            equals, value = "=", rest.pop(0)
        if "." in name:
            settings.append(f"--{name}{equals}{value}")
        else:
            extra[name] = value if equals else True
    return settings, extra


def check_numbers(given: argparse.Namespace) -> None:
    """Raises LaunchError for a number that makes no job."""
    for name, low in {"nodes": 1, "ranks_per_node": 1, "parts": 1, "at_once": 1, "gpus_per_node": 0}.items():
        value = getattr(given, name, None)
        if value is not None and value < low:
            raise LaunchError(f"--{name.replace('_', '-')}={value} must be at least {low}")


def check_time(limit: str | bool, signal_seconds: int) -> None:
    """Raises LaunchError for a time limit that is over before its warning; for the forms see `man sbatch`."""
    days, dash, clock = str(limit).rpartition("-")
    if not re.fullmatch(r"\d*", days) or not re.fullmatch(r"\d+(:\d+){0,2}", clock):
        return  # sbatch will say what is wrong with it
    numbers = [int(number) for number in clock.split(":")]
    if not dash and len(numbers) < 3:
        numbers = [0, *numbers]
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    if ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds <= signal_seconds:
        raise LaunchError(
            f"--time={limit} is over before its warning, {signal_seconds} s ahead; "
            f"give more time, or fewer --signal-seconds"
        )


def need_slurm() -> None:
    """Raises LaunchError on a machine without Slurm."""
    if not shutil.which("sbatch"):
        raise LaunchError("no sbatch on this machine; log in to the cluster, or use --cluster local")


def check_slurm(extra: Extra, scripts: Sequence[str]) -> None:
    """Let Slurm itself look at the scripts. Raises LaunchError."""
    need_slurm()
    helped = run("sbatch", "--help")
    known = sorted(set(re.findall(r"--([a-z][a-z-]+)", helped.stdout)) - set(OURS))
    if not known:
        raise LaunchError(
            f"sbatch does not work here: {last_line(helped)}; is the cluster down? try again later"
        )
    for name in extra:
        if name not in known:
            why = "is set by the launcher" if name in OURS else "is no option of sbatch"
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean --{near[0]}? " if near else ""
            raise LaunchError(f"--{name} {why}; {hint}valid are: {', '.join(known)}")
    for text in scripts:
        with outside_any_job():
            done = run("sbatch", "--test-only", input=text)
        if done.returncode:
            told = done.stderr.strip().splitlines()[0].removeprefix("sbatch: error: ")
            names = ", ".join(sorted(ask("sinfo", "-h", "-o", "%R").split()))
            hint = f"; partitions here are: {names}" if "partition" in told else ""
            raise LaunchError(f"Slurm refuses the job: {told}{hint}")


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Without the variables of a Slurm job that this may run in, which would bind the new one to it."""
    conf = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env() if "SLURM_JOB_ID" in os.environ else nullcontext():
        os.environ.update(conf)
        yield


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def ask(*command: str) -> str:
    """What a command prints; nothing where it fails or is not there."""
    return run(*command).stdout if shutil.which(command[0]) else ""


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a command said, of its errors where there are any."""
    return next(
        (line for line in reversed((done.stdout + done.stderr).splitlines()) if line.strip()), "no word"
    )


def train(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """check all that can be checked here, record it in the run folder, submit"""
    settings, extra = split_words(rest)
    check_numbers(given)
    check_time(extra.get("time", ""), given.signal_seconds)
    words = [*([given.config] if given.config else []), *settings]
    config = read_config(words, "launch/slurm.py train")
    check(config, ranks=ranks_of(given))
    check_data(config)
    check_same_run(words, config)
    folder = new_folder(given, "train")
    record = {"run": config.run.dir, "ranks": ranks_of(given), "nodes": given.nodes, "config": asdict(config)}
    return launch(given, folder, plan_train(given, folder, config, extra), extra, record, dump(config))


def shards(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """build a dataset by an array of jobs; the words behind -- are those of `python -m shards build`"""
    settings, extra = split_words(rest)
    check_numbers(given)
    if settings:
        raise LaunchError(
            f"{settings[0]}: a dataset has no settings; words of `shards build` stand behind --"
        )
    check_build(given.words)
    folder = new_folder(given, "shards")
    return launch(given, folder, plan_shards(given, folder, extra), extra, {"run": " ".join(given.words)})


def new_folder(given: argparse.Namespace, kind: str) -> Path:
    """Where scripts and logs of this launch will lie; not made yet."""
    return Path(given.folder).absolute() / f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"


def launch(
    given: argparse.Namespace,
    folder: Path,
    jobs: Sequence[Job],
    extra: Extra,
    record: Mapping[str, Any],
    config: str = "",
) -> int:
    """Print the scripts, or record the launch and run its jobs one after the other."""
    scripts = [job.script(folder) for job in jobs]
    if given.cluster == "slurm" and (shutil.which("sbatch") or not given.dry_run):
        check_slurm(extra, scripts)
    if given.dry_run:
        print("\n".join(scripts))
        return 0
    record = write_record(given, folder, record, config)
    ids: list[str] = []
    for job in jobs:
        ids.append(submit(folder, job, ids) if given.cluster == "slurm" else "")
        (folder / "launch.json").write_text(json.dumps({**record, "jobs": ids}, indent=1), encoding="utf-8")
        code = 0 if given.cluster == "slurm" else run_here(given.cluster, folder, job)
        if code:
            return code
    if given.cluster == "slurm":
        print(f"submitted {' and '.join(ids)} as {folder.name}; see: python launch/slurm.py status")
    return 0


def write_record(
    given: argparse.Namespace, folder: Path, record: Mapping[str, Any], config: str
) -> dict[str, Any]:
    """Say what is launched from which code, in the launch's folder and in the run's. Raises LaunchError."""
    root = str(Path(__file__).resolve().parent)
    about = {
        "launch": folder.name,
        "command": shlex.join(sys.argv),
        "cluster": given.cluster,
        "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": ask("git", "-C", root, "rev-parse", "HEAD").strip() or None,
        "dirty": bool(ask("git", "-C", root, "status", "--porcelain").strip()),
        **record,
    }
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise LaunchError(
            f"--folder={given.folder}: {error.strerror}; give one that all nodes share"
        ) from None
    if is_secret(" ".join(sys.argv) + config):  # what the job needs of it is for this user alone
        folder.chmod(0o700)
    told: dict[str, Any] = redacted(about)
    if config:
        launches = store.join(record["run"], "launches")
        store.make_folder(launches)
        store.write_bytes(store.join(launches, f"{folder.name}.json"), json.dumps(told, indent=1).encode())
        store.write_bytes(str(folder / "config.yaml"), config.encode(), private=is_secret(config))
    return told


def submit(folder: Path, job: Job, ended: Sequence[str]) -> str:
    """Hand a job to Slurm, to start when those of `ended` have; returns its id."""
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(**job.options, dependency=f"afterany:{':'.join(ended)}" if ended else None)
    try:
        with outside_any_job():
            if len(job.tasks) > 1:
                return executor.submit_array(job.tasks)[0].job_id.partition("_")[0]
            return executor.submit(job.tasks[0]).job_id
    except FailedJobError as error:
        raise LaunchError(f"Slurm refuses the job: {' '.join(str(error).split())}") from None


def run_here(cluster: str, folder: Path, job: Job) -> int:
    """Run a job on this machine, the tasks of an array in turn; returns the first exit code but 0."""
    for task in job.tasks:
        code = run_in_process(task) if cluster == "debug" else run_ranks(folder, job.options, task)
        if code:
            return code
    return 0


def run_in_process(task: Task) -> int:
    """As `python WORDS` would, but where a debugger sees it."""
    sys.argv = list(task.words[1:])
    try:
        runpy.run_module(task.words[1], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def run_ranks(folder: Path, options: Mapping[str, Any], task: Task) -> int:
    """All ranks as processes of this machine; what rank 0 says is shown."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ask(sys.executable, "-c", FREE_PORT).strip()}
    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(
        tasks_per_node=options["nodes"] * options["ntasks_per_node"],
        gpus_per_node=options.get("gpus_per_node") or 0,
        timeout_min=10**6,
        stderr_to_stdout=True,
    )
    # Ctrl-C is for this process alone, which hands it on as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = executor.submit(task)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.kill(int(job.job_id), signal.SIGTERM))
    words = ["tail", f"--pid={job.job_id}", "-n", "+1", "-F", str(job.paths.stdout)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True):
        while not job.done():
            time.sleep(0.1)
    try:
        return next((code if code > 0 else 128 - code for code in job.results() if code), 0)
    except UncompletedJobError:
        raise LaunchError(f"a task was killed; the logs are in {folder}") from None


def find(given: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The launch of that name or job id, or the newest. Raises LaunchError."""
    for path in sorted(Path(given.folder).absolute().glob("*/launch.json"), key=os.path.getmtime)[::-1]:
        record = json.loads(path.read_text(encoding="utf-8"))
        if given.launch in (None, record["launch"], *record["jobs"]):
            return path.parent, record
    what = given.launch or "no launch"
    raise LaunchError(
        f"{what}: nothing of it in --folder={given.folder}; to see all: python launch/slurm.py status"
    )


def status(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """show launches: their jobs, how each attempt ended, the first rank's error"""
    names = [path.parent.name for path in Path(given.folder).glob("*/launch.json")]
    for name in sorted(names) if given.launch is None else [given.launch]:
        given.launch = name
        folder, record = find(given)
        print(f"{folder.name}: {record['run']}")
        path = folder / "attempts"
        ends = path.read_text().splitlines() if path.exists() else []
        for job, state in states(record["jobs"]).items():
            last = next((end for end in reversed(ends) if end.split()[0] == job), "")
            print(
                "  "
                + "; ".join(
                    filter(None, (f"{job} {state}", last.partition(" ")[2], first_error(folder, job)))
                )
            )
    return 0


def queue() -> list[list[str]]:
    """The jobs of this user: id, job, state, reason, nodes, name. Raises LaunchError."""
    if not shutil.which("squeue"):
        return []
    # The name last, for it may hold anything.
    told = run("squeue", "-ht", "all", "--me", "-o", "%i|%F|%T|%r|%N|%j")
    if told.returncode:
        raise LaunchError(f"squeue does not work here: {last_line(told)}; is the cluster down? try again")
    return [line.split("|", 5) for line in told.stdout.splitlines() if line.count("|") >= 5]


def states(ids: Sequence[str]) -> dict[str, str]:
    """What Slurm says of each job and array task, or its accounting where it is long over."""
    found = {
        name: " ".join(
            filter(None, (MERGE * (kind == MERGE), state, where, f"({reason})" * (reason != "None")))
        )
        for name, job, state, reason, where, kind in queue()
        if job in ids
    }
    gone = [job for job in filter(None, ids) if not any(name.partition("_")[0] == job for name in found)]
    for job in gone:
        found[job] = " ".join(ask("sacct", "-nXP", "-j", job, "-o", "State").split()) or "not in the queue"
    return dict(sorted(found.items()))


def first_error(folder: Path, job: str) -> str | None:
    """What the first task to fail in the last attempt said; srun tells the order."""
    batch = last_attempt(folder / f"{job}_batch.out")
    failed = re.findall(r"^srun: error: (\S+): tasks? (\d+)\S*: (.+)$", batch, re.M)
    told = [(rank, node, end, last_attempt(folder / f"{job}_{rank}_log.out")) for node, rank, end in failed]
    told = [row for row in told if not row[2].endswith("exit code 75")]
    if not told:
        return None
    # A rank that was killed says nothing; of a wrong setting, which all ranks meet, rank 0 alone tells.
    telling = (row for row in told if "error" in row[3].lower() or not row[2].startswith("Exited"))
    rank, node, end, text = next(telling, told[0])
    lines = text.strip().splitlines()
    line = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "no word")
    return f"rank {rank} on {node}: {end}: {line}"


def last_attempt(path: Path) -> str:
    """The log since the last attempt began."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return text[text.rfind("\nattempt ") + 1 :]


def logs(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """show what the batch script and one rank have said"""
    folder, record = find(given)
    job, rank = record["jobs"][0] or "*", given.rank
    names = (
        f"{job}_batch.out",
        f"{job}_{rank}_log.out",
        f"{job}_{rank}_batch.out",
        f"{job}_{rank}_0_log.out",
    )
    paths = [str(path) for name in names for path in sorted(folder.glob(name))]
    if not paths:
        raise LaunchError(f"{folder.name} has no log of rank {rank} yet; see: python launch/slurm.py status")
    words = ["tail", "-n", "40", *(["-F"] if given.follow else []), *paths]
    return subprocess.run(words, check=False).returncode


def cancel(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """end the jobs of a launch for good"""
    return control(given, "scancel")


def requeue(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """stop the jobs of a launch, saved, and let Slurm start them again"""
    return control(given, "scontrol", "requeue")


def control(given: argparse.Namespace, *command: str) -> int:
    """Hand the jobs of a launch to a command of Slurm. Raises LaunchError with its answer."""
    folder, record = find(given)
    need_slurm()
    if record["cluster"] != "slurm":
        raise LaunchError(f"{folder.name} runs without Slurm; end it with Ctrl-C where it runs")
    for job in record["jobs"]:
        done = run(*command, job)
        if done.returncode:
            told = " ".join(done.stderr.split())
            raise LaunchError(
                f"{job}: {told}; the command of the launch, given again, goes on where it ended"
            )
    print(f"{' '.join(command)}: {folder.name}")
    return 0


class Parser(argparse.ArgumentParser):
    """Errors of argparse in the form of all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def make_parser() -> Parser:
    """The launcher's own options; all others are settings, or options of sbatch."""
    parser = Parser(prog="python launch/slurm.py", description="Jobs on a Slurm cluster.", allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    subs = {}
    for does in (train, shards, status, logs, cancel, requeue):
        sub = commands.add_parser(
            does.__name__, help=does.__doc__, description=does.__doc__, allow_abbrev=False
        )
        sub.set_defaults(does=does)
        sub.add_argument(
            "--folder",
            type=folder_of_logs,
            default="runs/slurm",
            help="of scripts and logs, on all nodes (%(default)s)",
        )
        subs[does.__name__] = sub
    for name in ("train", "shards"):
        sub = subs[name]
        sub.epilog = "Other options go to sbatch: --partition P --time 12:00:00 --account A --mem 64G ..."
        places = "local: on this machine; debug: in this process (%(default)s)"
        sub.add_argument("--cluster", choices=("slurm", "local", "debug"), default="slurm", help=places)
        sub.add_argument("--dry-run", action="store_true", help="check, and print the batch scripts")
        whole(sub, "--max-failures", 3, "failures in a row after which a job is still requeued")
    for name in ("status", "logs", "cancel", "requeue"):
        default = "all" if name == "status" else "the newest"
        subs[name].add_argument("launch", nargs="?", metavar="LAUNCH", help=f"its name or job id ({default})")
    subs["train"].add_argument("--config", type=argument, help="YAML file; settings are --group.name VALUE")
    whole(subs["train"], "--nodes", 1, "nodes")
    whole(subs["train"], "--gpus-per-node", 0, "GPUs of each node, one rank for each")
    whole(subs["train"], "--ranks-per-node", None, "ranks of each node where that is not its GPUs")
    subs["train"].add_argument("--interface", help="network interface of NCCL and gloo")
    whole(subs["train"], "--signal-seconds", 120, "warning before the time limit")
    whole(subs["shards"], "--parts", 8, "tasks of the array")
    whole(subs["shards"], "--at-once", None, "tasks at the same time, if not all")
    whole(subs["logs"], "--rank", 0, "the rank, or the task of an array")
    subs["logs"].add_argument("--follow", action="store_true", help="until Ctrl-C")
    return parser


def folder_of_logs(text: str) -> str:
    """`--folder` as argparse takes it, without what Slurm would fill in or drop in the names of logs."""
    path = argument(text)
    for sign in "%\\\n":
        if sign in str(Path(path).absolute()):
            raise argparse.ArgumentTypeError(
                f"{text!r}: the names of logs must not hold {sign!r}, a sign of Slurm's own; "
                "give another folder"
            )
    return path


def whole(parser: argparse.ArgumentParser, flag: str, default: int | None, does: str) -> None:
    """An option that is a whole number."""
    parser.add_argument(flag, metavar="N", type=int, default=default, help=f"{does} (%(default)s)")


@command
def main(argv: Sequence[str]) -> int:
    """The command line; wrong use is one line on stderr and exit status 2."""
    cut = argv.index("--") if "--" in argv else len(argv)
    given, rest = make_parser().parse_known_args(argv[:cut])
    given.words = list(argv[cut + 1 :])
    try:
        if rest and given.does not in (train, shards):
            raise LaunchError(
                f"{rest[0]} is not known; see: python launch/slurm.py {given.does.__name__} --help"
            )
        return int(given.does(given, rest))
    except (ConfigError, ShardsError, LaunchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
