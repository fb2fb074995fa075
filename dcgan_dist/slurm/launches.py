"""The folders of launches: scripts, logs and a record of what was launched from which code."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dcgan_dist.slurm.errors import LaunchError
from dcgan_dist.slurm.programs import ask
from shards.redact import is_secret, redacted
from shards.storage import store


def new_folder(given: argparse.Namespace, kind: str) -> Path:
    """Where scripts and logs of this launch will lie; not made yet."""
    return Path(given.folder).absolute() / f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"


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
