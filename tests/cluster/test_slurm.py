"""Four real Slurm nodes: a training and a dataset, launched, broken into and cancelled."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from shards.building.build import build
from shards.sources.drawn.rooms import Rooms
from tests.cluster import jobs
from tests.cluster.jobs import Interruption, launch, settings, start
from tests.cluster.slurm import Cluster, slurm_cluster
from tests.test_promises import losses, run

pytestmark = pytest.mark.slurm
STEPS = 20


def job_of(cluster: Cluster, folder: Path, *words: str) -> str:
    done = launch(cluster, folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


def check_nothing_is_left(cluster: Cluster) -> None:
    cluster.wait_for("the end of all processes", lambda: not cluster.processes(), seconds=30)


@pytest.mark.slow
def test_four_nodes_train_the_run_of_one(slurm: Cluster, rooms16: str, tmp_path: Path) -> None:
    words = settings(rooms16, tmp_path / "run", STEPS)
    job = job_of(slurm, tmp_path / "slurm", "train", "--nodes", "4", "--time", "5", *words)
    slurm.wait_for("the end", lambda: slurm.state(job) == "COMPLETED")
    run(1, settings(rooms16, tmp_path / "alone", STEPS))
    for line, wanted in zip(losses(tmp_path / "run"), losses(tmp_path / "alone"), strict=True):
        assert line == pytest.approx(wanted, rel=1e-6)

    told = launch(slurm, tmp_path / "slurm", "status", job).stdout
    assert f"{job} COMPLETED" in told
    assert "attempt 0 exit 0" in told
    assert "rank" not in told
    assert "task 3 of 4 on 127.0.0.4" in launch(slurm, tmp_path / "slurm", "logs", job, "--rank", "3").stdout
    (record,) = (tmp_path / "run" / "launches").iterdir()
    fields = json.loads(record.read_text())
    assert (fields["ranks"], fields["nodes"], len(fields["commit"])) == (4, 4, 40)
    assert fields["config"]["train"]["steps"] == STEPS
    check_nothing_is_left(slurm)


@pytest.mark.slow
def test_torchrun_on_four_nodes_trains_the_run_of_one(slurm: Cluster, rooms16: str, tmp_path: Path) -> None:
    words = settings(rooms16, tmp_path / "run", STEPS)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    exports = f"--export=ALL,PATH={path},PYTHONPATH={jobs.ROOT},OMP_NUM_THREADS=1"
    script = str(jobs.ROOT / "launch" / "torchrun.sbatch")
    out = f"--output={tmp_path}/log"
    job = slurm.tell("sbatch", "--parsable", "--nodes=4", exports, out, script, *words)
    slurm.wait_for("the end", lambda: slurm.state(job) in ("COMPLETED", "FAILED"), seconds=120)
    assert slurm.state(job) == "COMPLETED", (tmp_path / "log").read_text()
    run(1, settings(rooms16, tmp_path / "alone", STEPS))
    for line, wanted in zip(losses(tmp_path / "run"), losses(tmp_path / "alone"), strict=True):
        assert line == pytest.approx(wanted, rel=1e-6)
    check_nothing_is_left(slurm)


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")  # which skips where there is none
@pytest.mark.parametrize(
    ("words", "cpus", "seen"),
    [
        ([], "2", {"0,1"}),
        (["--gpus-per-task", "1"], "2", {"0", "1"}),
        (["--gpu-bind", "single:1", "--cpus-per-task", "1"], "1", {"0", "1"}),
    ],
    ids=["whole", "task", "bound"],
)
def test_ranks_of_gpus_have_their_share_of_cpus_and_see_gpus(
    rooms16: str, tmp_path: Path, words: list[str], cpus: str, seen: set[str]
) -> None:
    with slurm_cluster(nodes=2, gpus=True) as cluster:
        asked = ["train", "--nodes", "2", "--gpus-per-node", "2", *words]
        job = job_of(cluster, tmp_path / "slurm", *asked, *settings(rooms16, tmp_path / "run"))
        cluster.wait_for("the ranks", lambda: len({found["RANK"] for found in ranks_of(cluster)}) == 4)
        ranks = ranks_of(cluster)
        assert {found["SLURM_CPUS_PER_TASK"] for found in ranks} == {cpus}
        assert {found["CUDA_VISIBLE_DEVICES"] for found in ranks} == seen
        cluster.tell("scancel", job)
        check_nothing_is_left(cluster)


def ranks_of(cluster: Cluster) -> list[dict[str, str]]:
    """The environments of all ranks."""
    return [found for _, found in cluster.processes() if "RANK" in found]


@pytest.mark.slow
def test_no_node_has_the_cpus_asked_for(slurm: Cluster, rooms16: str, tmp_path: Path) -> None:
    words = ["train", "--ranks-per-node", "2", "--cpus-per-task", "3", *settings(rooms16, tmp_path / "run")]
    done = launch(slurm, tmp_path / "slurm", *words)
    assert done.stderr == (
        "error: --cpus-per-task=3: the 2 ranks of a node need 6 CPUs, and no node of the partition has more "
        "than 4; give 2 at most\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "interrupt",
    [jobs.signal_it, jobs.requeue_it, jobs.preempt_it, jobs.crash_a_node],
    ids=lambda it: it.__name__,
)
def test_an_interrupted_job_ends_where_the_unbroken_one_does(
    slurm: Cluster, rooms16: str, tmp_path: Path, interrupt: Interruption
) -> None:
    check_it_goes_on(slurm, rooms16, tmp_path, interrupt)


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")  # which skips where there is none
def test_ranks_that_slurm_tracks_by_control_groups_are_signalled_too(rooms16: str, tmp_path: Path) -> None:
    if os.geteuid() or not Path("/sys/fs/cgroup/freezer").is_dir():
        pytest.skip("needs root and control groups of version 1")
    with slurm_cluster(proctrack="cgroup") as cluster:
        check_it_goes_on(cluster, rooms16, tmp_path, jobs.signal_it)


def check_it_goes_on(cluster: Cluster, data: str, folder: Path, interrupt: Interruption) -> None:
    """Break into a training once, and compare its end with that of the unbroken one."""
    training = start(cluster, data, folder)
    training.wait_for_steps(12)
    interrupt(training, last=True)
    if interrupt is not jobs.crash_a_node:
        assert training.saved == max(training.steps), "the very last step was saved"
    training.finish()
    assert cluster.state(training.job) == "COMPLETED", training.status
    assert training.restarts == 1
    assert training.differences() == []
    check_nothing_is_left(cluster)


@pytest.mark.slow
def test_a_job_at_its_time_limit_is_saved_and_goes_on(slurm: Cluster, rooms16: str, tmp_path: Path) -> None:
    training = start(slurm, rooms16, tmp_path, "--time", "2", "--signal-seconds", "25")
    training.wait_for_steps(1)
    training.wait_for("PENDING")
    assert training.saved == max(training.steps)
    assert "exit 75" in training.status
    training.finish()
    assert training.restarts == 1
    assert training.differences() == []


@pytest.mark.slow
def test_a_cancelled_job_stays_cancelled_and_leaves_nothing(
    slurm: Cluster, rooms16: str, tmp_path: Path
) -> None:
    training = start(slurm, rooms16, tmp_path)
    training.wait_for_steps(3)
    assert launch(slurm, tmp_path / "slurm", "cancel").returncode == 0
    training.wait_for("CANCELLED")
    check_nothing_is_left(slurm)
    time.sleep(3)
    assert slurm.state(training.job) == "CANCELLED"
    assert training.restarts == 0


@pytest.mark.slow
def test_a_job_that_fails_by_itself_is_requeued_a_few_times(
    slurm: Cluster, rooms16: str, tmp_path: Path
) -> None:
    training = start(slurm, rooms16, tmp_path, "--max-failures", "1")
    for attempt in (0, 1):
        training.wait_for_steps(3)
        os.kill(task_of(slurm, RANK="2"), signal.SIGKILL)
        if attempt == 0:
            training.wait_for("PENDING")
            assert "rank 2 on 127.0.0.3: Killed" in training.status
            slurm.start_now(training.job)
            training.wait_for("RUNNING")
    training.wait_for("FAILED")
    assert "failed 2 times in a row, not requeued" in training.status
    assert "rank 2 on 127.0.0.3: Killed" in training.status
    check_nothing_is_left(slurm)


def task_of(cluster: Cluster, **words: str) -> int:
    """The process of the task that has these words in its environment."""
    wanted = words.items() | {("SLURM_STEP_ID", "0")}
    (pid,) = [pid for pid, found in cluster.processes() if wanted <= found.items()]
    return pid


@pytest.mark.slow
def test_a_wrong_setting_on_the_nodes_ends_the_job_and_is_shown(
    slurm: Cluster, rooms16: str, tmp_path: Path
) -> None:
    words = settings(rooms16, tmp_path / "run", STEPS)
    job = job_of(slurm, tmp_path / "slurm", "train", "--nodes", "4", "--hold", *words)
    (launched,) = (tmp_path / "slurm").iterdir()
    path = launched / "config.yaml"
    path.write_text(path.read_text().replace(rooms16, str(tmp_path / "gone")))
    slurm.tell("scontrol", "release", job)
    slurm.wait_for("the end", lambda: slurm.state(job) == "FAILED")
    told = launch(slurm, tmp_path / "slurm", "status").stdout
    assert "exit 2" in told
    assert "gone does not exist; to make a dataset run" in told
    check_nothing_is_left(slurm)


@pytest.mark.slow
def test_an_array_of_parts_is_one_build_also_when_tasks_are_killed(slurm: Cluster, tmp_path: Path) -> None:
    many = str(tmp_path / "many")
    words = ["rooms", many, "--images", "20000", "--size", "16", "--shard-images", "100", "--workers", "1"]
    job = job_of(slurm, tmp_path / "slurm", "shards", "--parts", "8", "--", *words)
    for part in (2, 5):
        name = f"{job}_{part}"
        slurm.wait_for(f"part {part}", lambda name=name: log_has(tmp_path, name, "attempt"), seconds=120)
        os.kill(task_of(slurm, SLURM_ARRAY_TASK_ID=str(part)), signal.SIGKILL)
        slurm.wait_for(f"{name} pending", lambda name=name: slurm.state(name) == "PENDING")
        slurm.start_now(name)
    slurm.wait_for("the merge", lambda: (Path(many) / "index.json").exists(), seconds=240)
    slurm.wait_for("an empty queue", lambda: not slurm.tell("squeue", "-h"))
    told = launch(slurm, tmp_path / "slurm", "status").stdout
    assert told.count("attempt 1 exit 0") == 2
    assert "merge COMPLETED" in told
    build(Rooms(20000, size=16), str(tmp_path / "one"), size=16, shard_images=100, workers=2)
    one, found = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "many")
    )
    # The command line adds what people look at.
    assert one.keys() == found.keys() - {"report.json", "sheet.png"}
    assert [name for name in one if one[name] != found[name]] == []
    check_nothing_is_left(slurm)


def log_has(folder: Path, name: str, text: str) -> bool:
    return any(text in path.read_text() for path in folder.glob(f"slurm/*/{name}_0_log.out"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--partition", "nope"], "invalid partition specified: nope; partitions here are: high, main"),
        (
            ["--partitio=main"],
            "--partitio is no option of sbatch; did you mean --partition? valid are: account,",
        ),
        (["--array=1-3"], "--array is set by the launcher"),
        (["--time", "soon"], "Invalid --time specification"),
        (["--nodes", "8"], "Requested node configuration is not available"),
        (["--gpus-per-node", "1"], "Invalid generic resource"),
        (
            ["--nodes", "3"],
            "does not divide over 3 ranks; nearest that do: 15 and 18 images, or 2 and 4 ranks",
        ),
        (["--data.url=nowhere"], "nowhere does not exist; to make a dataset run"),
        (["--optim.lrr=1"], "unknown setting optim.lrr; did you mean optim.lr?"),
        (["stray"], "stray is not known"),
        (["--nodes", "0"], "--nodes=0 must be at least 1"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_job_is_one_line_before_it_is_submitted(
    slurm: Cluster, rooms16: str, tmp_path: Path, words: list[str], told: str
) -> None:
    done = launch(slurm, tmp_path / "slurm", "train", *settings(rooms16, tmp_path / "run", STEPS), *words)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert told in lines[0]
    assert list(tmp_path.iterdir()) == []
    assert slurm.tell("squeue", "-h") == ""
