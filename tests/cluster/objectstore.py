"""A real object store for tests: Ceph's gateway with all data in memory, up in two seconds and gone after.

Where Ceph's programs are not installed, moto's S3 server stands in, a mock that takes any secret. Kept out:
faults, which are `faultproxy`'s, and pytest.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

CEPH_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
START_SECONDS = 60

# Replaces itself by the server, which then dies with this process, however that ends.
LAUNCH = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1,9); os.execvp(sys.argv[1],sys.argv[1:])"

SETTINGS = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{mon_port}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
ms mon client mode = crc
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
crash dir = {folder}
admin socket = {folder}/$name.sock
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 0
mon data avail warn = 0
paxos propose interval = 0.05
paxos min wait = 0.01
mon tick interval = 1
objecter tick interval = 0.2
[mon.a]
mon data = {folder}/mon
[osd]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd class load list = *
osd class default list = *
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable usage log = false
rgw enable ops log = false
rgw enable quota threads = false
rgw run sync thread = false
rgw dynamic resharding = false
rgw thread pool size = 64
rgw dns name =
"""


class NotInstalledError(RuntimeError):
    """Neither server is installed; the message says what to install."""


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server and a bucket in it; `kind` is ceph or moto."""

    kind: str
    endpoint: str
    key: str = "testing-key"
    secret: str = "testing-secret-0123456789"
    bucket: str = "testing"

    @property
    def url(self) -> str:
        """The bucket."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        """What a user would set to reach this server; nothing of the machine's own accounts is read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def through(self, endpoint: str) -> "ObjectStore":
        """The same store, reached by way of a proxy."""
        return replace(self, endpoint=endpoint)


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A store with an empty bucket; on leaving it is gone with its data. Raises NotInstalledError."""
    with ExitStack() as stack:
        if all(map(shutil.which, CEPH_PROGRAMS)):
            running = stack.enter_context(_ceph())
        elif find_spec("moto") and find_spec("flask"):
            running = stack.enter_context(_moto())
        else:
            raise NotInstalledError(
                "no object store: apt-get install --no-install-recommends ceph-mon ceph-osd radosgw, "
                "or pip install 'moto[server]'"
            )
        _make_bucket(running)
        yield running


@contextmanager
def _ceph() -> Iterator[ObjectStore]:
    """One monitor, one storage daemon in memory, one gateway, without authentication among them."""
    with tempfile.TemporaryDirectory(prefix="ceph-") as name, Servers(Path(name)) as servers:
        folder, (port, mon_port) = Path(name), free_ports(2)
        found = ObjectStore("ceph", f"http://127.0.0.1:{port}")
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        settings = folder / "ceph.conf"
        settings.write_text(SETTINGS.format(fsid=fsid, folder=folder, port=port, mon_port=mon_port))
        for part in ("mon", "osd"):
            (folder / part).mkdir()
        monmap, conf = str(folder / "monmap"), ("-c", str(settings))
        rgw = (*conf, "-n", "client.rgw")
        address = f"[v2:127.0.0.1:{mon_port}]"
        servers.run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, monmap)
        servers.run("ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", monmap)
        servers.start("ceph-mon", *conf, "-i", "a", "-f")
        servers.run("ceph", *conf, "osd", "new", osd)
        servers.run("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        servers.start("ceph-osd", *conf, "-i", "0", "-f")
        user = ("--uid=test", "--display-name=test", f"--access-key={found.key}", f"--secret={found.secret}")
        servers.run("radosgw-admin", *rgw, "user", "create", *user)
        servers.start("radosgw", *rgw, "-f")
        servers.wait_for(found.endpoint)
        yield found


@contextmanager
def _moto() -> Iterator[ObjectStore]:
    with tempfile.TemporaryDirectory(prefix="moto-") as name, Servers(Path(name)) as servers:
        (port,) = free_ports(1)
        servers.start(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
        found = ObjectStore("moto", f"http://127.0.0.1:{port}")
        servers.wait_for(found.endpoint)
        yield found


class Servers:
    """Processes that end when the block does; what they say goes to a log each in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing of theirs is kept, so nothing is lost by ending them at once.
        for process in reversed(self._running):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, *command: str) -> None:
        """Run `command` to its end. Raises RuntimeError with its last lines when it fails."""
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=START_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{command[0]} did not end in {START_SECONDS} s: {self._told()}") from error
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stdout.decode(errors='replace')[-500:]}")

    def start(self, *command: str) -> None:
        """Start `command` in its own process group."""
        with (self._folder / f"{Path(command[0]).name}.out").open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-SE", "-c", LAUNCH, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def wait_for(self, endpoint: str) -> None:
        """Until the server answers, with whatever status."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self._running):
                break
            try:
                urllib.request.urlopen(endpoint, timeout=5).close()
                return
            except urllib.error.HTTPError as error:
                error.close()
                return
            except OSError:
                time.sleep(0.03)
        raise RuntimeError(f"{endpoint} did not come up: {self._told()}")

    def _told(self) -> str:
        return "; ".join(log.read_text(errors="replace")[-300:] for log in self._folder.glob("*.out"))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _make_bucket(running: ObjectStore) -> None:
    import botocore.session  # s3fs brings it; without s3fs the tests are skipped before this

    client = botocore.session.get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=running.endpoint,
        aws_access_key_id=running.key,
        aws_secret_access_key=running.secret,
    )
    try:
        client.create_bucket(Bucket=running.bucket)
    finally:
        client.close()
