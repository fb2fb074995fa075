"""The page itself: one HTML file with its pictures inside, that asks no other machine for anything."""

import base64
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from dcgan_dist.report.charts import chart
from dcgan_dist.report.paper import SECTIONS, Section
from dcgan_dist.report.read_runs import Gathered
from dcgan_dist.run_folder.versions import versions

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem}h2{font-size:1.25rem;margin-top:2.5rem;border-top:1px solid #8886;padding-top:1rem}
table{border-collapse:collapse;margin:.8rem 0;font-size:.9rem}
th,td{padding:.2rem .7rem;text-align:left;border-bottom:1px solid #8884;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
figure{margin:1rem 0}figure img{max-width:100%;height:auto;image-rendering:pixelated}
figure svg{width:100%;max-width:40rem;height:auto;display:block}
figcaption,.note{font-size:.87rem;opacity:.8}svg text{font:11px system-ui;fill:currentColor}
svg .axis{stroke:#8886}code{font-size:.85rem;background:#8882;padding:.1rem .3rem;overflow-wrap:anywhere}
blockquote{margin:.6rem 0;padding:.1rem .9rem;border-left:3px solid #8888}
.box{border:1px solid #8886;border-radius:.5rem;padding:.2rem 1rem;margin:1rem 0}
.met{color:#2da44e}.missed{color:#d1242f;font-weight:600}.scroll{overflow-x:auto}nav{columns:2;font-size:.9rem}
"""


def render(runs: Sequence[Gathered], *, command: str) -> str:
    """The whole page."""
    body = [_head(runs, command)]
    for section in SECTIONS:
        body.append(
            f'<section id="{section.key}"><h2>{escape(section.title)}</h2>'
            f"<blockquote>{_says(section)}</blockquote>{_paper_table(section)}"
            f"{_ours(section, runs)}</section>"
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>The DCGAN paper beside these runs</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _head(runs: Sequence[Gathered], command: str) -> str:
    rows = [("run", "net", "data", "batch", "seed", "step")]
    for each in runs:
        part = {name: each.settings.get(name) or {} for name in ("model", "data", "train")}
        rows.append(
            (
                each.name,
                str(part["model"].get("net", "?")),
                str(part["data"].get("url", "?")),
                str(part["data"].get("batch_images", "?")),
                str(part["train"].get("seed", "?")),
                str(each.steps[-1]) if each.steps else "no checkpoint",
            )
        )
    links = "".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in SECTIONS)
    problems = "".join(f'<p class="missed">{escape(p)}</p>' for each in runs for p in each.problems)
    return (
        "<h1>The DCGAN paper beside these runs</h1>"
        "<p>Each part quotes what the paper reports, then shows what these runs give, with controls. The "
        "paper's numbers are of LSUN, ImageNet and faces at full size: compare directions, not digits, "
        "unless the data are the same. † marks numbers as widely quoted, not read again in the paper.</p>"
        f"{table(rows)}{_box(runs)}{problems}<p>Made by {_code(command)} on "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, dcgan_dist {versions()['dcgan_dist']}</p>"
        f"<nav><ol>{links}</ol></nav>"
    )


def _box(runs: Sequence[Gathered]) -> str:
    """In short: how near the samples came, and which rules held and which were missed."""
    return f'<div class="box">{"".join(map(_in_short, runs))}</div>'


def _in_short(each: Gathered) -> str:
    judged = [
        (section, measure)
        for section in SECTIONS
        for measure in each.findings.get(section.key, {}).get("measures", [])
        if measure.get("rule")
    ]
    missed = [(section, measure) for section, measure in judged if not measure["passed"]]
    told = [_distance(each.scores)]
    if judged:
        held = f"{len(judged) - len(missed)} of {len(judged)} rules held."
        told.append(held if missed else f'<span class="met">{held}</span>')
    else:
        told.append("No exploration has been run yet.")
    lines = "".join(
        f'<li><a href="#{section.key}">{escape(section.title)}</a>: {escape(measure["name"].strip())} '
        f"{_value(measure)}, {_verdict(measure)}</li>"
        for section, measure in missed
    )
    return f"<p><strong>{escape(each.name)}</strong>: {' '.join(filter(None, told))}</p><ul>{lines}</ul>"


def _distance(scores: Mapping[str, float]) -> str:
    """The sliced Wasserstein distance in words, where `evaluate` has measured it."""
    if not {"swd", "swd_floor", "swd_at_step_0"} <= scores.keys():
        return "Not scored yet; dcgan evaluate does it."
    return (
        f"At step {scores['step']:,.0f} the samples' sliced Wasserstein distance is {scores['swd']:.4g}; "
        f"at step 0 it was {scores['swd_at_step_0']:.4g}, and real pictures are at {scores['swd_floor']:.4g}."
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head; columns of numbers stand right."""
    numeric = [all(_is_number(row[i]) for row in rows[1:]) and len(rows) > 1 for i in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        lines.append(
            "".join(
                f"<{tag}{' class=n' if right else ''}>{escape(cell)}</{tag}>"
                for cell, right in zip(row, numeric, strict=True)
            )
        )
    return f'<div class="scroll"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _is_number(cell: str) -> bool:
    return cell.strip("-† ") == "" or cell.lstrip("-")[:1].isdigit()


def _says(section: Section) -> str:
    return escape(section.says if "not in the paper" in section.title else f"The paper: {section.says}")


def _paper_table(section: Section) -> str:
    if not section.rows:
        return ""
    return f'<p class="note">Reported by the paper:</p>{table(section.rows)}'


def _ours(section: Section, runs: Sequence[Gathered]) -> str:
    """What the runs have of this section, or which command makes it."""
    if section.key == "training":
        return "".join(_training(each) for each in runs)
    findings = {each.name: each.findings[section.key] for each in runs if section.key in each.findings}
    probes = {each.name: each.probes[section.key] for each in runs if section.key in each.probes}
    parts = []
    if findings:
        parts.append(_measures(findings))
        parts += [_figures(each, each.findings[section.key]) for each in runs if each.name in findings]
    parts += [_probe(run, told) for run, told in probes.items()]
    missing = [each.name for each in runs if each.name not in findings and each.name not in probes]
    if missing:
        told = ", ".join(escape(run) for run in missing)
        parts.append(f'<p class="note">Not run for {told}. Make it with {_code(section.command)}</p>')
    return "".join(parts)


def _measures(findings: dict[str, dict[str, Any]]) -> str:
    """A row for each measure, a column for each run; over several runs also mean and sd."""
    numbered = [_numbered(told["measures"]) for told in findings.values()]
    keys = list(dict.fromkeys(key for measures in numbered for key in measures))
    if not keys:
        return ""
    head = ["measure", *findings, *(["mean +- sd"] if len(findings) > 1 else []), "held against"]
    rows = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    for key in keys:
        found = [measures.get(key) for measures in numbered]
        cells = [f"<td>{escape(key[0])}</td>", *(f'<td class="n">{_value(m)}</td>' for m in found)]
        if len(findings) > 1:
            cells.append(f'<td class="n">{_spread(found)}</td>')
        rules = [m for m in found if m is not None and m.get("rule")]
        cells.append(f"<td>{'; '.join(dict.fromkeys(map(_verdict, rules)))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _numbered(measures: Sequence[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """By name, and for those of one name, as each control has, by their turn."""
    turns: Counter[str] = Counter()
    found = {}
    for measure in measures:
        found[measure["name"], turns[measure["name"]]] = measure
        turns[measure["name"]] += 1
    return found


def _value(measure: dict[str, Any] | None) -> str:
    if measure is None or measure["value"] is None:
        return "-"
    spread = measure.get("low"), measure.get("high")
    interval = "" if None in spread else f" [{spread[0]:.3f}, {spread[1]:.3f}]"
    return f"{measure['value']:.3f}{interval}"


def _spread(found: Sequence[dict[str, Any] | None]) -> str:
    values = [m["value"] for m in found if m is not None and m["value"] is not None]
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        return "-"
    return f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}"


def _verdict(measure: dict[str, Any]) -> str:
    word = "met" if measure["passed"] else "missed"
    return f'<span class="{word}">{word}</span>: {escape(measure["rule"])}'


def _figures(each: Gathered, told: dict[str, Any]) -> str:
    parts = []
    for figure in told.get("figures", []):
        data = each.picture("explore", figure["file"].rsplit("/", 1)[-1])
        if data is not None:
            parts.append(_picture(data, f"{each.name}: {figure['caption']}"))
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in told.get("notes", []))
    made = f"At step {escape(str(told['step']))}, by {_code(told['command'])}"
    return f'{"".join(parts)}{notes}<p class="note">{made}</p>'


def _picture(data: bytes, caption: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    text = escape(caption)
    return f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'


def _probe(run: str, told: dict[str, Any]) -> str:
    rows = [("method", "labels", "test error %", "spread", "paper %")]
    paper = told["paper"]
    for result in told["results"]:
        method, labels, interval = result["method"], result["labels"], result["interval"]
        spread = "-" if interval is None else f"+- {interval:.2f}, {result['interval_of']}"
        known = paper.get(f"{method}, {labels}", paper.get(method, "-"))
        rows.append((method, labels, f"{result['error']:.2f}", spread.rstrip(", "), known))
    protocol, command = escape(told["protocol"]), _code(told["command"])
    return f'<p class="note">{escape(run)}: {protocol}</p>{table(rows)}<p>{command}</p>'


def _training(each: Gathered) -> str:
    def curve(name: str) -> list[tuple[float, float]]:
        return [(line["step"], line[name]) for line in each.curves if name in line]

    parts = [f'<p class="note">{escape(each.name)}</p>']
    parts.append(chart("losses", {name: curve(name) for name in ("loss/d", "loss/g")}))
    judged = ("d/real", "d/fake_before", "d/fake_after")
    parts.append(chart("D(x), D(G(z)) before and after D's update", {name: curve(name) for name in judged}))
    scores = sorted({name for line in each.curves for name in line if name.startswith(("eval/", "score/"))})
    parts.append(chart("scores", {name: curve(name) for name in scores}))
    grids = each.samples()
    for name in dict.fromkeys([*grids[1:2], *grids[-1:]]):
        data = each.picture("samples", name)
        if data is not None:
            parts.append(_picture(data, f"{each.name}: {name.removesuffix('.png')}"))
    real = each.picture("real.png")
    if real is not None:
        parts.append(_picture(real, f"{each.name}: real pictures"))
    parts.append(f"<p>{_code(SECTIONS[0].command.replace('RUN', each.name))}</p>")
    return "".join(parts)


def _code(command: str) -> str:
    return f"<code>{escape(command)}</code>" if command else ""
