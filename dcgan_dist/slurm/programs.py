"""Other programs, run for what they print."""

import shutil
import subprocess
from typing import Any


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
