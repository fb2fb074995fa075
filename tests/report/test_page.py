"""The page shows every measure of every exploration, also of controls that share their names."""

from typing import Any

from dcgan_dist.report.page import _measures, render
from dcgan_dist.report.read_runs import Gathered


def measure(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "value": value, "low": None, "high": None, "rule": "", "passed": None}


def forgetting(shift: float = 0.0) -> dict[str, Any]:
    rows = [
        (
            f"{kind} maps" if at == 0 else "  change outside" if at == 1 else "  still windows",
            number + at / 10,
        )
        for number, kind in enumerate(("chosen", "by IoU", "random", "least"))
        for at in range(3)
    ]
    return {"measures": [measure(name, value + shift) for name, value in rows]}


def test_rows_of_one_name_are_all_shown_in_their_order() -> None:
    page = _measures({"a": forgetting()})
    assert page.count("<tr>") == 1 + 12
    assert page.count("change outside") == page.count("still windows") == 4
    places = [page.index(f">{number}.{at}00<") for number in range(4) for at in (0, 1, 2)]
    assert places == sorted(places)


def test_runs_are_put_side_by_side_row_by_row() -> None:
    page = _measures({"a": forgetting(), "b": forgetting(shift=2.0)})
    assert page.count("<tr>") == 1 + 12
    assert "1.000 +- 1.414" in page
    fewer = forgetting()
    del fewer["measures"][3:]
    page = _measures({"a": fewer, "b": forgetting()})
    assert page.count("<tr>") == 1 + 12
    assert page.count('<td class="n">-</td>') == 2 * 9


def test_the_box_says_what_held_what_was_missed_and_how_near_it_came() -> None:
    rules = [
        measure("windows", 0.2) | {"rule": "at least 0.5", "passed": False},
        measure("beds", 0.9) | {"rule": "at least 0.5", "passed": True},
        measure("no rule", 1.0),
    ]
    finding = {"measures": rules, "figures": [], "notes": [], "step": 20, "command": "c"}
    scores = {"swd": 49.48, "swd_floor": 11.31, "swd_at_step_0": 251.0, "step": 1500}
    page = render([Gathered("a", [1500], {}, {"forget": finding}, scores=scores)], command="c")
    box = page.partition('<div class="box">')[2].partition("</div>")[0]
    assert "1 of 2 rules held" in box
    assert box.count("<li>") == 1
    assert "windows 0.200" in box
    assert "49.48; at step 0 it was 251, and real pictures are at 11.31" in box
    assert "Not scored yet" in render([Gathered("a", [], {})], command="c")
