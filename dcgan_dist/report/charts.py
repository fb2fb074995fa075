"""Curves as SVG, inside the page: no script, no file beside it."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM = 620, 170, 46, 22
INKS = ("#1f6feb", "#d1690e", "#2da44e", "#8250df", "#bf3989", "#57606a")

Curve = Sequence[tuple[float, float]]


def chart(title: str, curves: Mapping[str, Curve]) -> str:
    """Lines by name, each of (step, value); empty ones are left out."""
    drawn = {name: points for name, points in curves.items() if len(points) > 1}
    if not drawn:
        return ""
    every = [point for points in drawn.values() for point in points]
    x_high, y_low, y_high = max(x for x, _ in every), min(y for _, y in every), max(y for _, y in every)
    y_low, y_high = min(0.0, y_low), y_high if y_high > y_low else y_low + 1

    def place(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - 8) * x / max(x_high, 1.0)
        up = 8 + (HEIGHT - BOTTOM - 8) * (y_high - y) / (y_high - y_low)
        return f"{across:.1f},{up:.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in (y_low, y_high):
        _, y = place(0, value).split(",")
        parts.append(
            f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - 8}" y2="{y}" class="axis"/>'
            f'<text x="{LEFT - 4}" y="{float(y) + 4}" text-anchor="end">{value:.3g}</text>'
        )
    parts.append(f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">step {x_high:,.0f}</text>')
    for (name, points), ink in zip(drawn.items(), INKS * len(drawn), strict=False):
        way = " ".join(place(x, y) for x, y in points)
        parts.append(
            f'<polyline points="{way}" fill="none" stroke="{ink}"><title>{escape(name)}</title></polyline>'
        )
    parts.append("</svg>")
    names = zip(drawn, INKS * len(drawn), strict=False)
    legend = " ".join(f'<span style="color:{ink}">&#9644;</span> {escape(name)}' for name, ink in names)
    return f"<figure>{''.join(parts)}<figcaption>{escape(title)}: {legend}</figcaption></figure>"
