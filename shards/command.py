"""What all commands do around their own work: nothing secret is printed, not even in a traceback, and a
reader that leaves early, as `| head` does, is no error. What its user did wrong is told here, in one line.

Kept out: what a command does.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import wraps
from types import ModuleType
from typing import Any, TextIO, cast

from shards.errors import ToldError
from shards.redact import redact

Main = Callable[[Sequence[str]], int]
REFUSED, INTERRUPTED = 2, 130


class Output:
    """A text stream that hides secrets, and drops what is written after its reader has left."""

    def __init__(self, stream: TextIO, *, hide: bool) -> None:
        self._stream, self._hide = stream, hide

    def write(self, text: str) -> int:
        self._tried(lambda: self._stream.write(redact(text) if self._hide else text))
        return len(text)

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def _tried(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BrokenPipeError:
            # What is buffered goes nowhere too, also when the interpreter flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def part(text: str) -> tuple[int, int]:
    """`3/8` on a command line, the third of eight parts, as two numbers."""
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is not a part; give it as 3/8")
    if not 1 <= int(number) <= int(parts):
        raise argparse.ArgumentTypeError(f"part={number} is outside [1, {parts}]; give it as 3/8")
    return int(number), int(parts)


def callable_module(name: str, function: Callable[..., Any]) -> None:
    """Let the command's module `name` be called as `function`.

    Once it is imported it hides a function of its own name in the package: both are one thing so.
    """

    class Command(ModuleType):
        def __call__(self, *given: Any, **named: Any) -> Any:
            return function(*given, **named)

    sys.modules[name].__class__ = Command


def command(main: Main, *, hide_output: bool = True) -> Main:
    """`main` as a command: its exit status, 2 with one line for a ToldError, or 1 with a traceback for an
    error of our own making."""

    @wraps(main)
    def run(argv: Sequence[str]) -> int:
        redact(" ".join(argv))  # so that it knows the passwords
        out = cast(TextIO, Output(sys.stdout, hide=hide_output))
        err = cast(TextIO, Output(sys.stderr, hide=True))
        with redirect_stdout(out), redirect_stderr(err):
            try:
                return main(argv)
            except ToldError as error:
                print(f"error: {error}", file=err)
                return REFUSED
            except KeyboardInterrupt:
                print("stopped", file=err)
                return INTERRUPTED
            except Exception:
                traceback.print_exc()
                return 1
            finally:
                out.flush()
                err.flush()

    return run
