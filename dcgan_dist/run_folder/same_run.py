"""Whether a configuration, a run folder and a checkpoint are of one run: what may change within it.

Nothing here needs torch, so that a login node asks before it submits. Kept out: who holds the folder now,
which is `owner`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dcgan_dist.config import reading
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.settings import Config, Data, Eval, Run, config_of
from shards import ShardsError
from shards.storage import store

# What a run may change when it resumes; everything else makes it another run.
FREE = {f"data.{f.name}" for f in fields(Data) if f.name != "batch_images"} | {
    *(
        "train.epochs",
        "train.steps",
        "train.device",
        "train.compile",
        "train.graphs",
        "train.deterministic",
        "train.timeout_seconds",
    ),
    *(f"run.{f.name}" for f in fields(Run)),
    *(f"eval.{f.name}" for f in fields(Eval)),
}

MADE = ("run.json", "metrics.jsonl", "checkpoints")
"""What tells a run folder."""


def differences(before: Config | Mapping[str, Any], after: Config) -> list[str]:
    """Names of settings that differ and may not change within one run.

    What an older version did not write down had its default. `auto` differs from nothing: it becomes what it
    was when the run began.
    """
    old, new, default = before, asdict(after), asdict(Config())
    if isinstance(old, Config):
        old = asdict(old)
    found = []
    for name in reading.types(Config):
        group, key = name.split(".")
        there = old.get(group)
        was = there.get(key, default[group][key]) if isinstance(there, Mapping) else default[group][key]
        if name not in FREE and new[group][key] not in (was, "auto"):
            found.append(name)
    return found


def check_same_run(argv: Sequence[str], config: Config) -> None:
    """Refuse a run folder of another run, and a configuration out of another run folder.

    `config` was read from `argv`. Raises ConfigError.
    """
    _check_place(argv, config)
    url = store.join(config.run.dir, "config.yaml")
    try:
        if not store.exists(url):
            return
        before = config_of(config.run.dir)
    except ShardsError as error:
        raise ConfigError(f"run.dir={config.run.dir}: {error}") from None
    changed = differences(before, config)
    if changed:
        raise ConfigError(
            f"run.dir={config.run.dir} holds a run with another {', '.join(changed)}; "
            "choose another run.dir, or delete that folder to start anew"
        )


def _check_place(argv: Sequence[str], config: Config) -> None:
    """A copied or moved run folder holds a configuration that names the one it came from."""
    path, given = reading.split_command_line(Config, argv)
    if path is None or not Path(path).is_file() or any(setting.name == "run.dir" for setting in given):
        return
    folder, named = Path(path).parent, Path(config.run.dir.removeprefix("file://"))
    if not any((folder / name).exists() for name in MADE):
        return
    if store.is_local(config.run.dir) and named.exists() and named.samefile(folder):
        return
    raise ConfigError(
        f"{path} lies in a run folder, but its run.dir={config.run.dir} is another; "
        f"say --run.dir {folder} to go on here, or --run.dir {config.run.dir} to go on there"
    )
