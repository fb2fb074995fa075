"""How long storage may take, how often it is asked, and what is counted.

One loop of tries with growing waits, within one limit of time. Kept out: what is asked, and which storage.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

CLIENTS = {
    "adlfs",
    "aiobotocore",
    "aiohttp",
    "azure",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "requests",
    "s3fs",
    "urllib3",
}
"""Packages whose errors are storage errors although they are no OSError."""

LEAKED = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, ValueError)
"""What these packages raise where they did not foresee an answer; ours when raised elsewhere."""

HOPELESS = {
    "NoCredentialsError",
    "NotImplementedError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "UnknownRegionError",
    "ValueError",
}
"""Errors, by name, that another try does not mend."""

PASSING_CODES = {"RequestTimeTooSkewed", "RequestExpired"}
"""Refusals that do pass: a request that waited too long on its way."""

GONE = (404, 410)


@dataclass(frozen=True, slots=True)
class Limits:
    """The patience with storage. No call takes longer than `budget_seconds` and the time for its bytes."""

    tries: int = 5
    first_wait_seconds: float = 0.25
    """Before the second try; doubled for each one after, less up to half of it by chance."""
    longest_wait_seconds: float = 10.0
    connect_seconds: float = 5.0
    read_seconds: float = 15.0
    """Of silence, before or within an answer."""
    budget_seconds: float = 60.0
    """For one call, all tries and waits."""
    slowest_bytes_per_second: int = 2**20
    """Large files may take longer: a second more for each of so many bytes."""

    def call_seconds(self, size_bytes: int) -> float:
        """The limit of a call that moves `size_bytes`."""
        return self.budget_seconds + size_bytes / self.slowest_bytes_per_second

    def try_seconds(self, size_bytes: int) -> float:
        """The limit of a single try."""
        return self.connect_seconds + self.read_seconds + size_bytes / self.slowest_bytes_per_second

    def wait_seconds(self, tries: int) -> float:
        """How long to wait after so many tries."""
        # From the system, so that no random stream of a training run moves.
        wait = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (tries - 1))
        return wait * (0.5 + os.urandom(1)[0] / 510)


@dataclass(frozen=True, slots=True)
class Counts:
    """What storage was asked for since the process began, or between two snapshots."""

    requests: int = 0
    """Calls to the storage, tries again included; reads of local files too."""
    retries: int = 0
    failures: int = 0
    """Calls that failed for good, files that were not there apart."""
    read_bytes: int = 0
    written_bytes: int = 0

    def __sub__(self, before: "Counts") -> "Counts":
        old = asdict(before)
        return Counts(**{name: value - old[name] for name, value in asdict(self).items()})


class Counters:
    """Counts that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(asdict(Counts()), 0)

    def add(self, **more: int) -> None:
        """Add to the counts named."""
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number

    def snapshot(self) -> Counts:
        """The counts now, all of one moment."""
        with self._lock:
            return Counts(**self._counts)


class GaveUpError(Exception):
    """The last error after all tries; `str` is one line that tells how many there were."""

    def __init__(self, error: Exception, tries: int, seconds: float) -> None:
        super().__init__(error, tries, seconds)
        self.error, self.tries, self.seconds = error, tries, seconds

    def __str__(self) -> str:
        tried = f"tried {self.tries} times in {self.seconds:.1f} s" if self.tries > 1 else ""
        return f"{one_line(self.error)} ({tried})" if tried else one_line(self.error)


class HopelessError(OSError):
    """A failure of our own finding that another try does not mend."""


class ShortError(OSError):
    """Fewer bytes than asked for."""


class LongError(OSError):
    """More bytes than such a file can have."""


class SumError(OSError):
    """Bytes that do not match their checksum."""


def patiently(ask: Callable[[float], T], limits: Limits, counters: Counters, *, size_bytes: int = 0) -> T:
    """What `ask(seconds)` returns, asked again after storage errors that may pass.

    Raises FileNotFoundError, GaveUpError, or what is no storage error as it is.
    """
    began = time.monotonic()
    for tries in count(1):
        left = began + limits.call_seconds(size_bytes) - time.monotonic()
        counters.add(requests=1)
        try:
            return ask(min(left, limits.try_seconds(size_bytes)))
        except Exception as raised:
            if not is_storage_error(raised):
                raise
            error = true_error(raised)
            if isinstance(error, FileNotFoundError):
                raise error from None
            spent, wait = time.monotonic() - began, limits.wait_seconds(tries)
            if tries >= limits.tries or spent + wait >= limits.call_seconds(size_bytes) or _hopeless(error):
                counters.add(failures=1)
                raise GaveUpError(error, tries, spent) from raised
            counters.add(retries=1)
        time.sleep(wait)
    raise AssertionError("unreachable")


def is_storage_error(error: BaseException) -> bool:
    """Whether `error` tells of storage, and not of a mistake of ours."""
    if isinstance(error, OSError) or _package(type(error).__module__) in CLIENTS:
        return True
    return isinstance(error, LEAKED) and _package(_raised_in(error.__traceback__)) in CLIENTS


def true_error(error: Exception) -> Exception:
    """`error`, or its cause where a client calls any failure a file that is not there."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    if isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in GONE:
        return error
    lost = isinstance(cause, OSError) or _package(type(cause).__module__) == "aiohttp"
    return cause if lost else error


def one_line(error: Exception) -> str:
    """What `error` says, on one line, and never nothing."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    if answer := _answer(error):
        text = ": ".join(str(answer[name]) for name in ("Code", "Message") if answer.get(name))
    elif not text and isinstance(error, TimeoutError):
        text = "no answer in time"
    return " ".join(text.split()) or type(error).__name__


def _hopeless(error: Exception) -> bool:
    if isinstance(error, PermissionError):
        return _answer(error).get("Code") not in PASSING_CODES
    kinds = (HopelessError, FileExistsError, IsADirectoryError, NotADirectoryError)
    return isinstance(error, kinds) or type(error).__name__ in HOPELESS


def _answer(error: Exception) -> dict[str, Any]:
    """What an S3 server said, code and message, where it was one."""
    response: Any = getattr(error.__cause__, "response", None)
    found = response.get("Error") if isinstance(response, dict) else None
    return found if isinstance(found, dict) else {}


def _package(module: str) -> str:
    return module.partition(".")[0]


def _raised_in(traceback: TracebackType | None) -> str:
    """The module of the frame that raised."""
    module = ""
    while traceback:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return module
