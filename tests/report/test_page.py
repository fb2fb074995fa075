"""The page shows every measure of every exploration, also of controls that share their names."""

from typing import Any

from dcgan_dist.report.page import _measures


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
