"""`dcgan COMMAND ...`: all commands under one name. `dcgan train` is `python -m dcgan_dist.train`.

`--ranks N` of `train`, `evaluate` and `probe` starts N ranks on this machine. Kept out: what the commands do,
and torch, so that help is there at once.
"""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from dcgan_dist.config.named import names
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.ranks.local import run_ranks
from shards.command import command

GROUPS = {
    "train": {
        "train": "train a run, or go on with it: dcgan train demo --ranks 2",
        "config": "check and print the settings of a run without starting it",
        "chaos": "kill a training again and again, and compare it with an unbroken one",
    },
    "look at what it learned": {
        "sample": "draw pictures: dcgan sample runs/demo --out more.png",
        "evaluate": "score the samples, each score beside its floor",
        "explore": "walks, arithmetic, guided backpropagation, forgetting, neighbours",
        "probe": "classify by the discriminator's features: CIFAR-10, SVHN, MNIST, digits",
        "report": "the paper's figures and tables beside those of runs, on one page",
    },
    "take it elsewhere": {
        "export": "weights, ONNX and a model card of a generator",
        "convert": "weights of another code base as a run folder",
    },
}
COMMANDS = [name for group in GROUPS.values() for name in group]
RANKED = ("train", "evaluate", "probe")


@command
def main(argv: Sequence[str]) -> int:
    """The command line; a command that runs takes the place of this process."""
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"dcgan_dist {_version()}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean dcgan {near[0]}?" if near else "see dcgan --help"
        raise ConfigError(f"dcgan has no command {name}; {hint}")
    ranks, rest = take_ranks(rest) if name in RANKED else (None, rest)
    words = [*_isolated(), "-m", f"dcgan_dist.{name}", *rest]
    if ranks is not None and ranks > 1:
        return run_ranks(words, ranks)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606  # it is this Python


def take_ranks(words: Sequence[str]) -> tuple[int | None, list[str]]:
    """The number behind `--ranks`, and the other words. Raises ConfigError."""
    rest, ranks, left = [], None, iter(words)
    for word in left:
        if word != "--ranks" and not word.startswith("--ranks="):
            rest.append(word)
            continue
        text = next(left, "") if word == "--ranks" else word.partition("=")[2]
        if not (text.isascii() and text.isdecimal() and int(text)):
            raise ConfigError(f"--ranks {text or 'without a number'}: give how many, 1 or more")
        ranks = int(text)
    return ranks, rest


def overview() -> str:
    """All commands, by what they are for."""
    lines = ["usage: dcgan COMMAND ...   (dcgan COMMAND --help for each)"]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<10} {does}" for name, does in group.items())]
    lines += ["", f"configurations by name: {', '.join(name for name in names() if '/' not in name)}"]
    lines += ["datasets are made by: shards build --help"]
    return "\n".join(lines)


def _isolated() -> list[str]:
    """A folder that happens to be the current one hides no module of ours, unless ours lie there."""
    return [] if Path(__file__).resolve().parents[1] == Path.cwd() else ["-P"]


def _version() -> str:
    try:
        return version("dcgan_dist")
    except PackageNotFoundError:  # a checkout that is only on the path
        return "0+unknown"


def entry() -> NoReturn:
    """The console command `dcgan`."""
    raise SystemExit(main(sys.argv[1:]))


if __name__ == "__main__":
    entry()
