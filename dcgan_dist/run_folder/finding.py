"""What an exploration leaves behind: `RUN/explore/NAME.json` and the pictures that it names.

The json is written last, so what it names is there. Kept out: how it is shown, see `dcgan_dist.report`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dcgan_dist.run_folder import untrusted
from dcgan_dist.run_folder.untrusted import WRONG, finite, typed
from shards import ShardsError
from shards.dedup.report import wilson
from shards.errors import MissingError, ToldError
from shards.redact import redacted
from shards.storage import store

FORMAT = 1


class ExploreError(ToldError):
    """An exploration cannot be done with what was asked or with what the run and its data hold."""


@dataclass(frozen=True)
class Measure:
    """One number: what it is, its spread (`low` to `high`) where known, and the rule it was held against."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    rule: str = ""
    passed: bool | None = None


@dataclass(frozen=True)
class Finding:
    """All of one exploration; `pictures` are PNG bytes by caption, in the order they are shown."""

    name: str
    title: str
    paper: str
    measures: Sequence[Measure]
    notes: Sequence[str] = ()
    pictures: dict[str, bytes] = field(default_factory=dict)


def held(name: str, value: float, *, at_least: float) -> Measure:
    """A measure with a rule of the form `at least`."""
    return Measure(name, value, rule=f"at least {at_least:g}", passed=value >= at_least)


def share(name: str, hits: int, total: int) -> Measure:
    """A share with its Wilson interval of 95 %; NaN of nothing."""
    if not total:
        return Measure(name, math.nan)
    return Measure(name, hits / total, *wilson(hits, total))


def save(finding: Finding, run: str, *, step: int, command: str) -> str:
    """Write pictures, then the json; its URL. Raises ShardsError."""
    folder = untrusted.folder(run, "explore")
    store.make_folder(folder)
    figures = []
    for number, (caption, data) in enumerate(finding.pictures.items(), start=1):
        name = f"{finding.name}-{number}.png"
        store.write_bytes(store.join(folder, name), data)
        figures.append({"file": name, "caption": caption})
    told = {
        "format": FORMAT,
        "name": finding.name,
        "title": finding.title,
        "paper": finding.paper,
        "step": step,
        "command": command,
        "measures": [{k: _plain(v) for k, v in asdict(m).items()} for m in finding.measures],
        "notes": list(finding.notes),
        "figures": figures,
    }
    url = store.join(folder, f"{finding.name}.json")
    store.write_bytes(url, json.dumps(redacted(told), indent=1).encode())
    return url


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(run: str, name: str) -> dict[str, Any] | None:
    """A finding as it was written; None where it was not. Raises ExploreError when it is no finding."""
    url = store.join(run, "explore", f"{name}.json")
    try:
        return _checked(json.loads(untrusted.read(run, "explore", f"{name}.json")))
    except MissingError:
        return None
    except ShardsError as error:
        raise ExploreError(str(error)) from None
    except WRONG:
        raise ExploreError(f"{url} is not a finding of this version; delete it and explore again") from None


def _checked(told: dict[str, Any]) -> dict[str, Any]:
    """A finding of which every part has its type; KeyError, TypeError and others where one has not."""
    if told["format"] != FORMAT:
        raise ValueError("another format")
    measures = [
        {
            "name": typed(m["name"], str),
            "value": finite(m["value"]),
            "low": finite(m.get("low")),
            "high": finite(m.get("high")),
            "rule": typed(m.get("rule", ""), str),
            "passed": typed(m.get("passed"), bool, type(None)),
        }
        for m in typed(told["measures"], list)
    ]
    figures = [{key: typed(f[key], str) for key in ("file", "caption")} for f in told.get("figures", [])]
    texts = {key: typed(told[key], str) for key in ("name", "title", "paper", "command")}
    notes = [typed(note, str) for note in typed(told.get("notes", []), list)]
    step = typed(told["step"], int)
    return {**texts, "format": FORMAT, "step": step, "measures": measures, "notes": notes, "figures": figures}


def lines(finding: Finding) -> str:
    """The measures, a line each, aligned."""
    width = max((len(m.name) for m in finding.measures), default=0)
    told = []
    for m in finding.measures:
        spread = f"  [{m.low:.3f}, {m.high:.3f}]" if m.low is not None and m.high is not None else ""
        verdict = "" if m.passed is None else f"  {'met' if m.passed else 'MISSED'}: {m.rule}"
        told.append(f"  {m.name:<{width}}  {m.value:8.3f}{spread}{verdict}")
    return "\n".join(told)
