"""One owner at a time for a run folder, on any storage: `run.json` names the process and since when.

    run.json  {"format": 1, "owner": {host, boot, pid, ...} or null, "beat": 7, "saved": 1000}

A process of this machine that is gone no longer owns anything, nor does an earlier start of the same Slurm
job. Of any other owner nobody here can tell, so it shows that it lives: it renews the file every
`BEAT_SECONDS`, and after `STALE_SECONDS` without that its folder is taken over. One that comes back finds the
other's name and stops. Kept out: what else a run folder holds.
"""

import fcntl
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dcgan_dist.checkpoints.writer import UnsavedError
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks.world import World
from shards import ShardsError
from shards.errors import MissingError
from shards.storage import store

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""Without a sign of life from another machine: six of them missed."""
SETTLE_SECONDS = 1.0
"""Where nothing locks, two that start at the same moment both write, and the one that reads itself stays."""

FILE, FORMAT = "run.json", 1
log = logging.getLogger("dcgan_dist")
_held: set[str] = set()  # tokens of this process


@dataclass(frozen=True)
class Holder:
    """A process that holds a run folder. `place` tells the folder from a copy of it."""

    token: str
    host: str
    boot: str
    pids: str
    pid: int
    started: str
    since: str
    place: str
    slurm_job: str
    slurm_restarts: int

    def __str__(self) -> str:
        job = f" of Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"process {self.pid}{job} on {self.host} since {self.since}"


@dataclass(frozen=True)
class State:
    """What `run.json` says. `beat` changes with each sign of life; `saved` is the newest step ever saved."""

    owner: Holder | None = None
    beat: int = 0
    saved: int = 0


class Owner:
    """This process's hold on a run folder, from `take` until `release`."""

    def __init__(self, url: str, state: State) -> None:
        assert state.owner is not None
        self.url, self._state, self._holder = url, state, state.owner
        self._lock = threading.Lock()
        self._lost = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="owner", daemon=True)
        self._thread.start()

    @property
    def saved(self) -> int:
        """The newest step that was ever saved here; 0 for none."""
        return self._state.saved

    def check(self, *, now: bool = True) -> None:
        """Raises UnsavedError where the folder is another's by now, or StoreError.

        `now` False asks no storage.
        """
        if now and not self._lost:
            with self._lock:
                self._look()
        if self._lost:
            raise UnsavedError(self._lost)

    def note_saved(self, step: int) -> None:
        """Write down that a checkpoint of `step` is whole. Raises UnsavedError or StoreError."""
        if step > self.saved:
            with self._lock:
                self._renew(saved=step)
        self.check(now=False)

    def release(self) -> None:
        """Hold it no longer. Where storage does not take that, others find this process gone."""
        self._over.set()
        self._thread.join()
        _held.discard(self._holder.token)
        with suppress(ShardsError), self._lock:
            self._renew(owner=None)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with suppress(ShardsError), self._lock:  # checkpoints meet the same, and tell it
                self._renew()

    def _renew(self, **changes: Any) -> None:
        with _alone(self.url):
            self._look()
            if not self._lost:
                self._state = replace(self._state, beat=self._state.beat + 1, **changes)
                _write(self.url, self._state)

    def _look(self) -> None:
        found = _read(self.url)
        if found is None:
            if store.is_local(self.url) and not store.exists(self.url):
                self._lost = f"run.dir={self.url} was removed under way; nothing more can be saved there"
        elif found.owner is None or found.owner.token != self._holder.token:
            other = found.owner or "another run, which has ended"
            self._lost = (
                f"run.dir={self.url} was taken over by {other}; nothing more is written there from here"
            )


def take(url: str) -> Owner:
    """Become the owner of the run folder `url`, which is made if it is not there.

    Raises ConfigError that names another owner, or StoreError. Waits where only time can tell.
    """
    store.make_folder(url)
    own = _myself(url)
    watched: tuple[State, float] | None = None  # the one that may live, and since when
    while True:
        with _alone(url) as alone:
            found = _read(url) or State(saved=_steps_made(url))
            stale = watched is not None and time.monotonic() - watched[1] > STALE_SECONDS
            if not found.owner or _is_gone(found.owner, own) or (stale and watched and found == watched[0]):
                if found.owner:
                    log.warning("run.dir=%s: taken over from %s, which is gone", url, found.owner)
                state = replace(found, owner=own, beat=found.beat + 1)
                _held.add(own.token)
                _write(url, state)
                break
        if _lives_here(found.owner, own) or (watched and found != watched[0]):
            raise ConfigError(_in_use(url, found.owner))
        if watched is None:
            watched = found, time.monotonic()
            log.warning(
                "run.dir=%s is held by %s; it is taken over after %.0f s without a sign of life",
                *(url, found.owner, STALE_SECONDS),
            )
        time.sleep(0.5)
    if not alone and not url.startswith("memory://"):
        time.sleep(SETTLE_SECONDS)
        after = _read(url)
        if after and after.owner and after.owner.token != own.token:
            raise ConfigError(_in_use(url, after.owner))
    return Owner(url, state)


@contextmanager
def hold(url: str, here: World) -> Iterator[Owner | None]:
    """The run folder held by rank 0 inside the block; None for the others. All ranks must call it.

    Raises ConfigError on all ranks where another run has it, or StoreError.
    """
    owner: Owner | None = None
    refused: ValueError = ConfigError(f"run.dir={url} is refused by rank 0")
    if here.rank == 0:
        try:
            owner = take(url)
        except (ConfigError, ShardsError) as error:
            refused = error
    if not here.agree(owner is not None):
        raise refused
    try:
        yield owner
    finally:
        if owner:
            owner.release()


def _in_use(url: str, owner: Holder) -> str:
    return (
        f"run.dir={url} is in use by {owner}; wait for its end, stop it (it saves at SIGTERM), "
        "or choose another run.dir"
    )


def _is_gone(owner: Holder, own: Holder) -> bool:
    """Whether `owner` surely no longer runs."""
    if owner.slurm_job and owner.slurm_job == own.slurm_job and owner.slurm_restarts < own.slurm_restarts:
        return True  # the job was requeued, and Slurm has ended its steps
    return _same_machine(owner, own) and not _runs(owner)


def _lives_here(owner: Holder, own: Holder) -> bool:
    """Whether `owner` surely runs, and in this very folder."""
    return _same_machine(owner, own) and owner.place == own.place and _runs(owner)


def _same_machine(owner: Holder, own: Holder) -> bool:
    """Whether both see the same processes by the same numbers."""
    return (owner.host, owner.boot, owner.pids) == (own.host, own.boot, own.pids)


def _runs(owner: Holder) -> bool:
    if owner.pid == os.getpid():
        return owner.token in _held
    return _started(owner.pid) == owner.started


def _started(pid: int) -> str:
    """When a process of this machine began, in the kernel's own count; empty for one that is gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():
            words = stat.read_text(errors="replace").rpartition(")")[2].split()
            return "" if words[0] in "ZX" else words[19]
        os.kill(pid, 0)
    except (OSError, IndexError, OverflowError):
        return ""
    return "runs"


def _myself(url: str) -> Holder:
    return Holder(
        token=secrets.token_hex(16),
        host=socket.gethostname(),
        boot=_told(Path("/proc/sys/kernel/random/boot_id")),
        pids=_link("/proc/self/ns/pid"),
        pid=os.getpid(),
        started=_started(os.getpid()),
        since=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        place=str(Path(url.removeprefix("file://")).stat().st_ino)
        if store.is_local(url)
        else url.rstrip("/"),
        slurm_job=os.environ.get("SLURM_JOB_ID", ""),
        slurm_restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0),
    )


def _told(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


@contextmanager
def _alone(url: str) -> Iterator[bool]:
    """A moment in which no other process of this machine looks or writes; whether that could be had."""
    if not store.is_local(url):
        yield False
        return
    try:
        folder = os.open(url.removeprefix("file://"), os.O_RDONLY)
    except OSError:  # the next to look there says why
        yield False
        return
    try:
        yield _locked(folder)
    finally:
        os.close(folder)


def _locked(folder: int) -> bool:
    """Some file systems of several machines do not lock; nobody holds it for longer than a write."""
    for _ in range(200):
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            return False
        else:
            return True
    return False


def _read(url: str) -> State | None:
    """What stands there; None where there is no such file. What is not of this form has an unknown owner."""
    try:
        data = store.read_bytes(store.join(url, FILE))
    except MissingError:
        return None
    try:
        told = json.loads(data)
        owner = None if told["owner"] is None else Holder(**told["owner"])
        if owner and any(not _is_plain(getattr(owner, item.name), item.type) for item in fields(owner)):
            raise ValueError("its owner is none of ours")
        return State(owner, int(told["beat"]), int(told["saved"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        log.warning("%s is not of its form; its owner is unknown", store.join(url, FILE))
        unknown = Holder("", "an unknown host", "", "", 0, "", "an unknown time", "", "", 0)
        return State(unknown, saved=_steps_made(url))


def _is_plain(value: object, kind: object) -> bool:
    """Numbers, and texts without what a terminal would take for an order."""
    if kind is int:
        return type(value) is int
    return type(value) is str and value.isprintable() and len(value) < 1000


def _write(url: str, state: State) -> None:
    store.write_bytes(store.join(url, FILE), json.dumps({"format": FORMAT, **asdict(state)}).encode())


def _steps_made(url: str) -> int:
    """The last step of which a run that left no `run.json` wrote metrics; 0 where it wrote none."""
    try:
        data = store.read_bytes(store.join(url, "metrics.jsonl"))
    except MissingError:
        return 0
    return max(map(int, re.findall(rb'^\{"step": (\d{1,18})[,}]', data, re.MULTILINE)), default=0)
