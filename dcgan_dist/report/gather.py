"""What runs have left behind: findings, probes, curves, samples. What is not of its form is told."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from dcgan_dist import checkpoint
from dcgan_dist.explore.finding import ExploreError
from dcgan_dist.explore.finding import read as read_finding
from dcgan_dist.report.paper import EXPLORE, SECTIONS
from shards import ShardsError, store


@dataclass(frozen=True)
class Gathered:
    """One run's part of the page, by section key; `problems` are files that could not be used."""

    run: str
    steps: list[int]
    settings: dict[str, Any]
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def picture(self, *names: str) -> bytes | None:
        """A file of the run; None where it is not there."""
        url = store.join(self.run, *names)
        return store.read_bytes(url) if store.exists(url) else None

    def samples(self) -> list[str]:
        """Names of the sample grids, oldest first."""
        url = store.join(self.run, "samples")
        return sorted(name for name in store.sizes(url) if name.endswith(".png")) if store.exists(url) else []


def gather(run: str) -> Gathered:
    """Raises ExploreError where `run` is no run folder."""
    url = store.join(run, "config.yaml")
    if not store.exists(url):
        raise ExploreError(f"{run} is not a run folder: it has no config.yaml")
    found = Gathered(run, checkpoint.steps(store.join(run, "checkpoints")), {})
    found.settings.update(_tried(found, url, lambda data: dict(yaml.safe_load(data))) or {})
    for section in SECTIONS:
        if section.command.startswith(EXPLORE):
            try:
                finding = read_finding(run, section.key)
            except ExploreError as error:
                found.problems.append(str(error))
                continue
            if finding is not None:
                found.findings[section.key] = finding
        probe = _tried(found, store.join(run, "probe", f"{section.key}.json"), _probe)
        if probe is not None:
            found.probes[section.key] = probe
    found.curves.extend(_tried(found, store.join(run, "metrics.jsonl"), _lines) or [])
    return found


def _tried(found: Gathered, url: str, parse: Callable[[bytes], Any]) -> Any:
    """The parsed file; None where it is not there or not of its form, which is then told."""
    try:
        return parse(store.read_bytes(url)) if store.exists(url) else None
    except (ShardsError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        found.problems.append(f"{url} is not what it should be; it is left out")
        return None


def _probe(data: bytes) -> dict[str, Any]:
    """As `dcgan_dist.probe` writes it: results with a method and an error each, and what describes them."""
    told = json.loads(data)
    for result in told["results"]:
        result["method"], float(result["error"])
    return dict(told)


def _lines(data: bytes) -> list[dict[str, Any]]:
    found = []
    for line in data.decode(errors="replace").splitlines():
        try:
            one = json.loads(line)
        except ValueError:  # cut short by a kill
            continue
        if isinstance(one, dict) and "step" in one:
            found.append(one)
    return found
