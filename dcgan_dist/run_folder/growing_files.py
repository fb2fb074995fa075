"""The files of a run folder that grow: metrics.jsonl and what TensorBoard writes, at any fsspec URL.

Where the folder is remote they grow in a temporary folder and are copied there whole. Kept out: what the
lines say, and checkpoints.
"""

import json
import logging
import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dcgan_dist.run_folder.owner import Owner
from shards.storage import store

METRICS = "metrics.jsonl"
log = logging.getLogger("dcgan_dist")


class Folder:
    """A run folder at `url`, with a place on this machine for the files that grow.

    Nothing is written once another run owns it: UnsavedError.
    """

    def __init__(self, url: str, owner: Owner) -> None:
        self.url, self._owner = url, owner
        owner.check()
        for name in ("samples", "checkpoints", "tensorboard"):
            store.make_folder(store.join(url, name))
        self._scratch = None if store.is_local(url) else tempfile.TemporaryDirectory(prefix="dcgan_dist-")
        self.growing = Path(self._scratch.name if self._scratch else url.removeprefix("file://"))
        self._publishing = threading.Lock()

    def write(self, name: str, data: bytes, *, private: bool = False) -> None:
        store.write_bytes(store.join(self.url, name), data, private=private)

    def publish(self, *names: str) -> None:
        """Copy the growing files, or those named, to where the run folder is; any thread may call it."""
        self._owner.check()
        if self._scratch is None:
            return
        found = (p.relative_to(self.growing).as_posix() for p in self.growing.rglob("*") if p.is_file())
        for name in sorted(found):
            if not names or name in names:
                with self._publishing:  # so that no older state comes after a newer one
                    self.write(name, (self.growing / name).read_bytes())

    def close(self) -> None:
        """Publish for the last time."""
        try:
            self.publish()
        finally:
            if self._scratch is not None:
                self._scratch.cleanup()


class History:
    """metrics.jsonl without the lines of steps that will be run again: `kept` holds those that stay.

    It is never rewritten in place, and each line is on its way to the disk before the next.
    """

    def __init__(self, folder: Folder, first_step: int) -> None:
        self._folder = folder
        url, path = store.join(folder.url, METRICS), folder.growing / METRICS
        self.kept: list[dict[str, Any]] = []
        if first_step and store.exists(url):
            self.kept = [row for row in parse(store.read_bytes(url), url) if row["step"] <= first_step]
        store.write_bytes(str(path), b"".join(_line(row) for row in self.kept))
        self._file = path.open("ab", buffering=0)

    def write(self, row: Mapping[str, Any]) -> None:
        """One more line. Raises OSError."""
        left = memoryview(_line(row))
        while left:
            left = left[self._file.write(left) :]

    def keep(self) -> None:
        """Have every line so far where the run folder is, and on its disk; any thread may call it."""
        os.fsync(self._file.fileno())
        self._folder.publish(METRICS)

    def close(self) -> None:
        self._file.close()


def parse(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    """The rows of metrics.jsonl that have a step; one warning tells of lines that are none."""
    lines = data.split(b"\n")
    bad = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if type(row["step"]) is not int:
                raise ValueError("its step is no whole number")
            yield row
        except (ValueError, KeyError, TypeError, RecursionError):
            if number < len(lines):  # the last one may have been cut short by a kill
                bad.append(number)
    if bad:
        told = f"{len(bad)} lines are no metrics" if len(bad) > 1 else "a line is no metrics"
        log.warning("%s: %s and left out, the first at line %d", where, told, bad[0])


def _line(row: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(_finite(row), allow_nan=False)}\n".encode()


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
