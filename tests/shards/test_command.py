"""What all commands share: no secret in what they print, and no fuss when nobody reads it."""

import importlib
import os
import subprocess
import sys

import pytest

from shards.command import command
from shards.errors import ToldError

COMMANDS = ["train", "sample", "evaluate", "export", "convert", "chaos.kill"] + [
    f"{folder}.__main__" for folder in ("config", "report", "explore", "probe")
]
SECRET = "p4ss/w@rd"
URL = f"http://bob:{SECRET}@host/set?sig=F00BA4&code=F00BA4#access_token=F00BA4"


def unread(*words: str) -> tuple[int, str]:
    """Exit status and stderr of a command whose stdout has no reader left."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    pytest.importorskip("submitit", reason="the extra slurm")
    assert unread("-m", "dcgan_dist.train", "--help") == (0, "")
    assert unread("launch/slurm.py", "train", "--help") == (0, "")
    assert unread("-m", "shards", "build", "--help") == (0, "")


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_is_one(module: str) -> None:
    main = importlib.import_module(f"dcgan_dist.{module}").main
    assert main.__wrapped__.__module__ == f"dcgan_dist.{module}"


def test_what_is_printed_after_the_reader_has_left_stops_nothing() -> None:
    program = (
        "import sys; from shards.command import command\n"
        "@command\n"
        "def main(argv):\n"
        "    for i in range(20000): print('line', i)\n"
        "    print('came to the end', file=sys.stderr)\n"
        "    return 7\n"
        "raise SystemExit(main([]))"
    )
    assert unread("-c", program) == (7, "came to the end\n")


def test_no_line_and_no_traceback_of_a_command_holds_a_secret(capfd: pytest.CaptureFixture[str]) -> None:
    @command
    def main(argv: object) -> int:
        print(f"reading {URL}")
        print(URL, file=sys.stderr)
        try:
            raise OSError(f"cannot connect to {URL}")
        except OSError as error:
            raise RuntimeError(f"within {URL!r}") from error

    assert main([]) == 1
    out, err = capfd.readouterr()
    assert out == "reading http://***@host/set?sig=***&code=***#access_token=***\n"
    assert "RuntimeError: within" in err
    assert err.count("cannot connect to http://***@host") == 1
    assert not any(secret in out + err for secret in (SECRET, "p4ss", "F00BA4"))


def test_an_interrupt_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    @command
    def main(argv: object) -> int:
        raise KeyboardInterrupt

    assert main([]) == 130
    assert capfd.readouterr().err == "stopped\n"


def test_what_the_user_did_wrong_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    class SomeModuleError(ToldError):
        pass

    @command
    def main(argv: object) -> int:
        raise SomeModuleError(f"{URL} is not there")

    assert main([]) == 2
    assert (
        capfd.readouterr().err
        == "error: http://***@host/set?sig=***&code=***#access_token=*** is not there\n"
    )
