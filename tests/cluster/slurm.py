"""A real Slurm cluster for tests: munge, slurmctld and a slurmd per node, all on this machine, gone after.

`python -m tests.cluster.slurm` starts one and opens a shell on it. Nodes are named by their loopback address,
so nothing of this machine is changed. Kept out: what is run on the cluster, and pytest.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.objectstore import NotInstalledError, Servers, free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
START_SECONDS = 60

# Accounting would take a database; squeue and scontrol tell what the launcher needs. A low-priority partition
# that is preempted by requeueing, after a grace, as clusters for training are set up.
SETTINGS = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=30
KillWait=10
MinJobAge=3600
FirstJobId={first_job}
NodeName=DEFAULT CPUs=4 RealMemory=4000 State=UNKNOWN
"""
PARTITIONS = """\
PartitionName=DEFAULT Nodes={nodes} MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=500
PartitionName=main Default=YES PriorityTier=10 GraceTime=20
PartitionName=high PriorityTier=100 PreemptMode=OFF
"""
# Named, because the autodetection refuses to start on hosts with both versions of control groups.
CGROUP = """\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=no
ConstrainDevices=no
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster, whose files are in `folder`."""

    folder: Path
    nodes: tuple[str, ...]
    servers: Servers

    @property
    def environment(self) -> Mapping[str, str]:
        """What a user's shell on this cluster has."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def tell(self, *command: str) -> str:
        """What a Slurm command prints. Raises RuntimeError when it fails."""
        done = subprocess.run(
            command,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """The state of a job, as PENDING or RUNNING."""
        return self.tell("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").splitlines()[0]

    def wait_for(self, what: str, happened: Callable[[], object], *, seconds: float = START_SECONDS) -> None:
        """Until `happened()` is true. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not happen in {seconds} s")
            time.sleep(0.1)

    def start_now(self, job: str) -> None:
        """Spare a requeued job that is pending the two minutes that Slurm lets it wait."""
        if self.state(job) == "PENDING":
            time.sleep(2)  # in the second of its end the new life would be refused its credential
            with suppress(RuntimeError):  # it has started meanwhile
                self.tell("scontrol", "update", f"jobid={job}", "StartTime=now")

    def start_node(self, node: str) -> None:
        """Start the daemon of one node."""
        (self.folder / f"spool.{node}").mkdir(exist_ok=True)
        self.servers.start("slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))

    def crash_node(self, node: str) -> None:
        """SIGKILL a node's daemon and everything that it runs, as a power cut would."""
        daemon = int((self.folder / f"slurmd.{node}.pid").read_text())
        tasks = [pid for pid, words in self.processes() if words.get("SLURMD_NODENAME") == node]
        steps = {_parent(pid) for pid in tasks} - {os.getpid()}
        steps = {pid for pid in steps if _command(pid).startswith("slurmstepd")}
        for pid in [daemon, *steps, *tasks]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[tuple[int, dict[str, str]]]:
        """The processes of all jobs of this cluster, each with its environment."""
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                words = _environment(int(path.name))
                if words.get("SLURM_CONF") == self.environment["SLURM_CONF"] and "SLURM_JOB_ID" in words:
                    found.append((int(path.name), words))
        return found


@contextmanager
def slurm_cluster(*, nodes: int = 4, proctrack: str = "linuxproc", gpus: bool = False) -> Iterator[Cluster]:
    """A cluster of idle nodes; on leaving, all jobs are cancelled and gone. Raises NotInstalledError.

    With `gpus` Slurm takes each node to have two, which are other devices of this machine.
    """
    _use_system_programs()
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        raise NotInstalledError(
            f"no {missing[0]}: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
        )
    names = tuple(f"127.0.0.{number}" for number in range(1, nodes + 1))
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, Servers(Path(name)) as servers:
        cluster = Cluster(Path(name), names, servers)
        _configure(cluster, proctrack)
        if gpus:
            _add_gpus(cluster)
        _start(cluster)
        try:
            yield cluster
        finally:
            _empty(cluster)
    for node in names:  # where control groups were used
        for path in sorted(Path("/sys/fs/cgroup/freezer").glob(f"slurm_{node}/**"), reverse=True):
            with suppress(OSError):
                path.rmdir()


def _use_system_programs() -> None:
    folders = os.environ["PATH"].split(":")
    os.environ["PATH"] = ":".join([*folders, *(each for each in ("/usr/sbin",) if each not in folders)])


def _configure(cluster: Cluster, proctrack: str) -> None:
    folder = cluster.folder
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    host, ports = socket.gethostname().partition(".")[0], free_ports(len(cluster.nodes) + 1)
    text = SETTINGS.format(
        host=host,
        port=ports[0],
        user=getpass.getuser(),
        folder=folder,
        proctrack=proctrack,
        # Files are named by job, so two clusters shall not give the same number.
        first_job=int(time.time()) % 6_000_000 * 10 + 1,
    )
    for node, port in zip(cluster.nodes, ports[1:], strict=True):
        text += f"NodeName={node} NodeHostname={host} NodeAddr={node} Port={port}\n"
    (folder / "slurm.conf").write_text(text + PARTITIONS.format(nodes=",".join(cluster.nodes)))
    (folder / "cgroup.conf").write_text(CGROUP)


def _add_gpus(cluster: Cluster) -> None:
    path = cluster.folder / "slurm.conf"
    text = path.read_text().replace("NodeName=DEFAULT ", "GresTypes=gpu\nNodeName=DEFAULT Gres=gpu:2 ")
    path.write_text(text)
    devices = "".join(f"Name=gpu File=/dev/{name}\n" for name in ("null", "zero"))
    (cluster.folder / "gres.conf").write_text(devices)


def _start(cluster: Cluster) -> None:
    folder = cluster.folder
    cluster.servers.start(
        "munged",
        "--foreground",
        "--force",
        f"--socket={folder}/munge.socket",
        f"--key-file={folder}/munge.key",
        f"--pid-file={folder}/munged.pid",
        f"--seed-file={folder}/munge.seed",
        f"--log-file={folder}/munged.log",
    )
    cluster.wait_for("munge", (folder / "munge.socket").exists)
    cluster.servers.start("slurmctld", "-D", "-i", "-f", str(folder / "slurm.conf"))
    for node in cluster.nodes:
        cluster.start_node(node)
    cluster.wait_for("all nodes idle", lambda: _idle(cluster) == len(cluster.nodes))


def _idle(cluster: Cluster) -> int:
    try:
        return len(set(cluster.tell("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()))
    except RuntimeError:  # the controller does not answer yet
        return 0


def _empty(cluster: Cluster) -> None:
    """Cancel every job, and wait until none of their processes is left."""
    with suppress(RuntimeError, TimeoutError):
        cluster.tell("scancel", "--me")
        cluster.wait_for("an empty queue", lambda: not cluster.tell("squeue", "-h"))
    for pid, _ in cluster.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _environment(pid: int) -> dict[str, str]:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has gone, or is not ours
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return os.getpid()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def main() -> int:
    """Start a cluster and open a shell on it; it ends with the shell."""
    with slurm_cluster() as cluster:
        print(cluster.tell("sinfo"))
        shell = os.environ.get("SHELL", "/bin/sh")
        return subprocess.run([shell], env=os.environ | cluster.environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
