"""What runs have left behind: findings, probes, curves, samples. What is not of its form is told.

A run folder may be a stranger's: nothing outside of it is read, every value has its type, and no text that is
gathered holds a secret.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.config import reading
from dcgan_dist.report.paper import EXPLORE, SECTIONS
from dcgan_dist.run_folder import untrusted
from dcgan_dist.run_folder.finding import ExploreError
from dcgan_dist.run_folder.finding import read as read_finding
from dcgan_dist.run_folder.untrusted import WRONG, finite, typed
from shards import ShardsError
from shards.errors import MissingError
from shards.redact import redact, redacted
from shards.storage import store

PNG = b"\x89PNG\r\n\x1a\n"
NAME = r"[\w .+=-]+\.png"
LARGEST = 1e30
"""Of a curve; what is beyond cannot be drawn."""


@dataclass(frozen=True)
class Gathered:
    """One run's part of the page, by section key; `scores` are the newest that `evaluate` has kept, and
    `problems` are files that could not be used."""

    run: str
    steps: list[int]
    settings: dict[str, dict[str, str]]
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run in texts."""
        return redact(self.run)

    def picture(self, *names: str) -> bytes | None:
        """A PNG of the run; None where there is none, which is told where something else is."""
        if re.fullmatch(NAME, names[-1]) is None:
            self.problems.append(f"{self.name}: {names[-1]!r} is no picture's name; it is left out")
            return None
        found: bytes | None = _tried(self, names, _png)
        return found

    def samples(self) -> list[str]:
        """Names of the sample grids, oldest first."""
        try:
            there = store.sizes_if_any(untrusted.folder(self.run, "samples"))
        except ShardsError as error:
            self.problems.append(str(error))
            return []
        return sorted(name for name in there if re.fullmatch(NAME, name))


def gather(run: str) -> Gathered:
    """Raises ExploreError where `run` is no run folder."""
    url = store.join(run, "config.yaml")
    if not store.exists(url):
        raise ExploreError(f"{run} is not a run folder: it has no config.yaml")
    found = Gathered(run, [], {})
    found.settings.update(_tried(found, ["config.yaml"], _settings) or {})
    try:
        found.steps.extend(checkpoint.steps(untrusted.folder(run, "checkpoints")))
    except ShardsError as error:
        found.problems.append(str(error))
    for section in SECTIONS:
        if section.command.startswith(EXPLORE):
            try:
                finding = read_finding(run, section.key)
            except ExploreError as error:
                found.problems.append(str(error))
                continue
            if finding is not None:
                found.findings[section.key] = redacted(finding)
        probe = _tried(found, ["probe", f"{section.key}.json"], _probe)
        if probe is not None:
            found.probes[section.key] = redacted(probe)
    found.scores.update(_newest_scores(found))
    found.curves.extend(_tried(found, ["metrics.jsonl"], _lines) or [])
    return found


def _newest_scores(found: Gathered) -> dict[str, float]:
    for step in reversed(found.steps):
        scores: dict[str, float] = _tried(found, ["scores", f"{checkpoint.stem(step)}.json"], _scores) or {}
        if scores:
            return scores | {"step": step}
    return {}


def _tried(found: Gathered, names: list[str] | tuple[str, ...], parse: Callable[[bytes], Any]) -> Any:
    """The parsed file; None where it is not there or not of its form, which is then told."""
    try:
        return parse(untrusted.read(found.run, *names))
    except MissingError:
        return None
    except ShardsError as error:
        found.problems.append(f"{error}; it is left out")
    except WRONG:
        found.problems.append(
            f"{redact(store.join(found.run, *names))} is not what it should be; it is left out"
        )
    return None


def _settings(data: bytes) -> dict[str, dict[str, str]]:
    told: dict[str, dict[str, str]] = redacted(reading.plain(data.decode(errors="replace"), where=""))
    return told


def _png(data: bytes) -> bytes:
    if not data.startswith(PNG):
        raise ValueError("no PNG")
    return data


def _probe(data: bytes) -> dict[str, Any]:
    """As `dcgan_dist.probe` writes it: results with a method and an error each, and what describes them."""
    told = json.loads(data)
    paper = {key: str(typed(value, int, float, str)) for key, value in (told.get("paper") or {}).items()}
    return {
        "results": [_result(result) for result in typed(told["results"], list)],
        "paper": paper,
        "protocol": typed(told.get("protocol", ""), str),
        "command": typed(told.get("command", ""), str),
    }


def _scores(data: bytes) -> dict[str, float]:
    """As `dcgan_dist.evaluate` writes it: the numbers among its scores."""
    told = json.loads(data)
    numbers = typed(told["scores"], dict) | {"swd_at_step_0": told.get("swd_at_step_0")}
    return {name: value for name, one in numbers.items() if (value := finite(one)) is not None}


def _result(told: dict[str, Any]) -> dict[str, Any]:
    error = finite(told["error"])
    if error is None:
        raise TypeError("no error")
    return {
        "method": typed(told["method"], str),
        "labels": str(typed(told.get("labels", told.get("known", "-")), str, int)),
        "error": error,
        "interval": finite(told.get("interval")),
        "interval_of": typed(told.get("interval_of", ""), str),
    }


def _lines(data: bytes) -> list[dict[str, float]]:
    """The numbers of every line that has a step; a line may be cut short by a kill."""
    found = []
    for line in data.decode(errors="replace").splitlines():
        try:
            one = json.loads(line)
        except (ValueError, RecursionError):
            continue
        numbers = {k: float(v) for k, v in one.items() if _drawable(v)} if isinstance(one, dict) else {}
        if numbers.get("step", -1) >= 0:
            found.append(numbers)
    return found


def _drawable(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST and not math.isnan(value)
