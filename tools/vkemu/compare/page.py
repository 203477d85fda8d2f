"""The comparison as one self-contained HTML page: a log-log plot for each axis, inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import log10
from typing import Final

from vkemu.compare.axes import AXES
from vkemu.compare.claims import Judged
from vkemu.compare.costs import COSTS
from vkemu.compare.measure import Sample, Series
from vkemu.compare.text import duration

COLOURS: Final = (
    "#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#16a085", "#7f6000", "#c2185b",
    "#34495e", "#6d8700", "#00838f",
)  # fmt: skip
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 130, 12, 34
STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}
h2{margin:2.2rem 0 .3rem;font-size:1.15rem}
svg{max-width:100%;height:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child,.left{text-align:left}
text{font:11px system-ui,sans-serif;fill:currentColor}
.grid{stroke:#8884;stroke-width:1}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#16181c}th,td{border-color:#444}}
"""


def render(found: Sequence[Series], claims: Sequence[Judged]) -> str:
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>vkemu compare</title><style>{STYLE}</style></head><body>",
            "<h1>What each reverse map costs</h1>",
            "<p>Counted on the kernel model; time is virtual, from the costs at the end.</p>",
            *_axes(found),
            *_claims(claims),
            *_costs(),
            "</body></html>\n",
        )
    )


def _axes(found: Sequence[Series]) -> Iterator[str]:
    policies = list(dict.fromkeys(series.policy for series in found))
    colour = {p: COLOURS[i % len(COLOURS)] for i, p in enumerate(policies)}
    for name, axis in AXES.items():
        rows = [series for series in found if series.axis == name]
        if rows:
            yield f"<h2>{name}</h2><p>{escape(axis.what)}</p>"
            yield from _plot(name, rows, colour)
            yield from _table(rows)


def _plot(name: str, rows: Sequence[Series], colour: dict[str, str]) -> Iterator[str]:
    samples = [sample for series in rows for sample in series.samples]
    sizes = sorted({sample.size for sample in samples})
    low, high = (log10(max(f(s.ns for s in samples), 1)) for f in (min, max))
    low, high = int(low), max(int(high) + 1, int(low) + 1)
    x0, x1 = log10(sizes[0]), log10(max(sizes[-1], sizes[0] + 1))

    def at(sample: Sample) -> tuple[float, float]:
        x = LEFT + (log10(sample.size) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return x, height(log10(max(sample.ns, 1)))

    def height(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    yield (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="time along {name}, both axes logarithmic">'
    )
    for decade in range(low, high + 1):
        y = height(decade)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_decade(decade)}</text>'
    for size in sizes:
        x, _ = at(Sample(size, {}, 1))
        yield f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{size}</text>'
    labels: list[tuple[float, str]] = []
    for series in rows:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, series.samples))
        stroke = colour[series.policy]
        yield f'<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="2"/>'
        labels.append((at(series.samples[-1])[1], series.policy))
    yield from _labels(sorted(labels), colour)
    yield "</svg>"


def _labels(labels: Sequence[tuple[float, str]], colour: dict[str, str]) -> Iterator[str]:
    """At the right ends of the lines, pushed apart."""
    last = -99.0
    shift = max(0.0, 12.0 * len(labels) - (HEIGHT - TOP))
    for y, policy in labels:
        last = max(y - shift, last + 12)
        yield (
            f'<text x="{WIDTH - RIGHT + 8}" y="{last + 4:.1f}" '
            f'style="fill:{colour[policy]}">{policy}</text>'
        )


def _decade(exponent: int) -> str:
    return duration(10**exponent) if exponent < 9 else f"{10 ** (exponent - 9)} s"


def _table(rows: Sequence[Series]) -> Iterator[str]:
    sizes = [sample.size for sample in rows[0].samples]
    head = "".join(f"<th>n = {size}</th>" for size in sizes)
    yield f"<table><tr><th>policy</th>{head}<th>growth</th></tr>"
    for series in rows:
        cells = "".join(
            f'<td title="{escape(", ".join(f"{k} {v}" for k, v in s.counts.items()))}">'
            f"{duration(s.ns)}</td>"
            for s in series.samples
        )
        yield f"<tr><td>{series.policy}</td>{cells}<td>{escape(series.growth)}</td></tr>"
    yield "</table>"


def _claims(claims: Sequence[Judged]) -> Iterator[str]:
    yield "<h2>What the analysis says</h2><table><tr><th>policy</th><th>axis</th>"
    yield '<th>section</th><th>claim</th><th>measured</th><th class="left">why</th></tr>'
    for judged in claims:
        claim = judged.claim
        why = "agrees" if judged.agrees else escape(claim.why or "differs")
        yield (
            f"<tr><td>{claim.policy}</td><td>{claim.axis}</td><td>{claim.section}</td>"
            f"<td>{escape(claim.growth)}</td><td>{escape(judged.measured)}</td>"
            f'<td class="left">{why}</td></tr>'
        )
    yield "</table>"


def _costs() -> Iterator[str]:
    yield '<h2>The cost model</h2><table><tr><th>count</th><th>ns</th><th class="left">what</th>'
    yield '<th class="left">source</th></tr>'
    for name, cost in COSTS.items():
        yield (
            f'<tr><td>{name}</td><td>{cost.ns}</td><td class="left">{escape(cost.what)}</td>'
            f'<td class="left">{escape(cost.source)}</td></tr>'
        )
    yield "</table>"
