"""The comparison as one self-contained HTML page: a log-log plot for each axis, inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from math import ceil, floor, log10
from typing import Final, TypeAlias

import msgspec

from vkemu.compare.axes import AXES
from vkemu.compare.claims import Judged
from vkemu.compare.costs import COSTS
from vkemu.compare.measure import Series
from vkemu.compare.text import duration

Line: TypeAlias = list[tuple[float, float]]

# The windows that break each policy, from the recorded matrix: tests/docs/summary_page.py.
BROKEN: Final = msgspec.json.decode(
    files("vkemu.compare").joinpath("broken.json").read_bytes(), type=dict[str, list[str]]
)
# (on white, on black) for each policy: readable on both.
COLOURS: Final = (
    ("#1b6ca8", "#63b3ed"), ("#c0392b", "#ff8577"), ("#23764a", "#63d297"),
    ("#8e44ad", "#cf9be6"), ("#a05a00", "#f0a848"), ("#0e7c68", "#3fd0b4"),
    ("#6b6000", "#d8c840"), ("#c2185b", "#ff7fb0"), ("#34495e", "#a9bdd1"),
    ("#4f6800", "#a9d040"), ("#00727d", "#4cd3e0"),
)  # fmt: skip
WIDTH, HEIGHT = 830, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 290, 12, 34
STYLE: Final = """
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--rule:#ddd;--bad:#b3261e}
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;
color:var(--ink);background:var(--paper)}
h2{margin:2.2rem 0 .3rem;font-size:1.15rem}
svg{max-width:100%;height:auto}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .6rem;text-align:right;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child,.left{text-align:left}
text{font:11px system-ui,sans-serif;fill:currentColor}
.grid{stroke:#8884;stroke-width:1}
.lead{stroke:#8888;stroke-width:.7}
svg g{color:var(--line)}
svg g line{stroke:currentColor;stroke-width:2.4}
svg:has(g:hover) g:not(:hover){opacity:.15}
.bad{color:var(--bad);font-weight:600}
tspan.bad{fill:var(--bad)}
"""
DARK: Final = "--ink:#ddd;--paper:#16181c;--rule:#444;--bad:#ff8a80"


def _style() -> str:
    light, dark = (
        "".join(f".p{i}{{--line:{pair[scheme]}}}" for i, pair in enumerate(COLOURS))
        for scheme in (0, 1)
    )
    return f"{STYLE}{light}@media(prefers-color-scheme:dark){{:root{{{DARK}}}{dark}}}"


def render(found: Sequence[Series], claims: Sequence[Judged]) -> str:
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>vkemu compare</title><style>{_style()}</style></head><body>",
            "<h1>What each reverse map costs</h1>",
            "<p>Counted on the kernel model; time is virtual, from the costs at the end.</p>",
            *_soundness(found),
            *_axes(found),
            *_claims(claims),
            *_costs(),
            "</body></html>\n",
        )
    )


def _axes(found: Sequence[Series]) -> Iterator[str]:
    colour = {name: i for i, name in enumerate(dict.fromkeys(s.policy for s in found))}
    for name, axis in AXES.items():
        rows = [series for series in found if series.axis == name]
        if rows:
            yield f"<h2>{name}</h2><p>{escape(axis.what)}</p>"
            yield from _plot(name, rows, colour)
            yield from _table(rows)


def _plot(name: str, rows: Sequence[Series], colour: dict[str, int]) -> Iterator[str]:
    ns = [sample.ns for series in rows for sample in series.samples]
    sizes = sorted({sample.size for series in rows for sample in series.samples})
    low = floor(log10(max(min(ns), 1)))
    high = max(ceil(log10(max(*ns, 1))), low + 1)
    x0, x1 = log10(sizes[0]), log10(max(sizes[-1], sizes[0] + 1))

    def across(size: int) -> float:
        return LEFT + (log10(size) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def height(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    yield (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="time along {name}, both axes logarithmic">'
    )
    for decade in range(low, high + 1):
        y = height(decade)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick(decade)}</text>'
    for size in sizes:
        x = across(size)
        yield f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{size}</text>'
    lines = [
        [(across(s.size), height(log10(max(s.ns, 1)))) for s in series.samples] for series in rows
    ]
    places = _pushed_apart([line[-1][1] for line in lines])
    for series, line, place in zip(rows, lines, places, strict=True):
        yield f'<g class="p{colour[series.policy] % len(COLOURS)}">'
        yield from _line(line, lines)
        yield from _label(series.policy, line[-1], place)
        yield "</g>"
    yield "</svg>"


def _line(line: Line, lines: Sequence[Line]) -> Iterator[str]:
    """Where several run together, each has its turn along the way: stripes of all their colours."""
    for i in range(len(line) - 1):
        (x, y), (to_x, to_y) = line[i], line[i + 1]
        together = _with(line, lines, i)
        turn = next(j for j, other in enumerate(together) if other is line)
        dashes = f'stroke-dasharray="7 {7 * (len(together) - 1)}" stroke-dashoffset="{-7 * turn}" '
        yield (
            f'<line {dashes if together[1:] else ""}x1="{x:.1f}" y1="{y:.1f}" '
            f'x2="{to_x:.1f}" y2="{to_y:.1f}"/>'
        )


def _with(line: Line, lines: Sequence[Line], i: int) -> list[Line]:
    """Those that run with it there, or with one that does."""
    found = [line]
    close = 2.0  # lines nearer to each other than this look like one
    for one in found:
        for other in lines:
            near = all(abs(other[j][1] - one[j][1]) < close for j in (i, i + 1))
            if near and not any(other is known for known in found):
                found.append(other)
    return [other for other in lines if any(other is known for known in found)]


def _pushed_apart(ends: Sequence[float]) -> list[float]:
    """Where the labels of lines that end there are readable."""
    order = sorted(range(len(ends)), key=lambda i: ends[i])
    places, last = [0.0] * len(ends), -99.0
    for later, i in enumerate(order):
        room = HEIGHT - 4 - 12 * (len(ends) - 1 - later)  # above those that follow
        places[i] = last = min(max(ends[i], last + 12), room)
    return places


def _label(policy: str, end: tuple[float, float], y: float) -> Iterator[str]:
    x = WIDTH - RIGHT
    broken = BROKEN[policy]
    more = f" and {len(broken) - 1} more" if broken[1:] else ""
    why = f' <tspan class="bad">\u2717 unsound: {broken[0]}{more}</tspan>' if broken else ""
    yield f'<path class="lead" d="M{end[0] + 2:.1f} {end[1]:.1f}L{x + 14} {y:.1f}"/>'
    yield f'<text x="{x + 18}" y="{y + 4:.1f}">{policy}{why}</text>'


def tick(exponent: int) -> str:
    """10 to the exponent nanoseconds, exactly."""
    unit, digits = divmod(exponent, 3)
    return f"{10**digits} {('ns', 'us', 'ms', 's')[unit]}"


def _table(rows: Sequence[Series]) -> Iterator[str]:
    sizes = [sample.size for sample in rows[0].samples]
    head = "".join(f"<th>n = {size}</th>" for size in sizes)
    yield f'<div class="wide"><table><tr><th>policy</th>{head}<th>growth</th></tr>'
    for series in rows:
        cells = "".join(
            f'<td title="{escape(", ".join(f"{k} {v}" for k, v in s.counts.items()))}">'
            f"{duration(s.ns)}</td>"
            for s in series.samples
        )
        mark = ' <span class="bad" title="unsound">\u2717</span>' if BROKEN[series.policy] else ""
        yield f"<tr><td>{series.policy}{mark}</td>{cells}<td>{escape(series.growth)}</td></tr>"
    yield "</table></div>"


def _soundness(found: Sequence[Series]) -> Iterator[str]:
    yield '<h2>Sound?</h2><div class="wide"><table><tr><th>policy</th>'
    yield '<th class="left">the windows that break it</th></tr>'
    for policy in dict.fromkeys(series.policy for series in found):
        broken = BROKEN[policy]
        text = f'<td class="left bad">\u2717 {", ".join(broken)}</td>' if broken else ""
        yield f"<tr><td>{policy}</td>{text or '<td class=left>none</td>'}</tr>"
    yield "</table></div><p>As <code>vkemu matrix</code> decided them for this version. A window "
    yield "counts that is open on the policy and not on the exact map in the same tree.</p>"


def _claims(claims: Sequence[Judged]) -> Iterator[str]:
    yield '<h2>What the analysis says</h2><div class="wide"><table><tr><th>policy</th><th>axis</th>'
    yield '<th>section</th><th>claim</th><th>measured</th><th class="left">why</th></tr>'
    for judged in claims:
        claim = judged.claim
        why = "agrees" if judged.agrees else escape(claim.why or "differs")
        yield (
            f"<tr><td>{claim.policy}</td><td>{claim.axis}</td><td>{claim.section}</td>"
            f"<td>{escape(claim.growth)}</td><td>{escape(judged.measured)}</td>"
            f'<td class="left">{why}</td></tr>'
        )
    yield "</table></div>"


def _costs() -> Iterator[str]:
    yield '<h2>The cost model</h2><div class="wide"><table><tr><th>count</th><th>ns</th>'
    yield '<th class="left">what</th><th class="left">source</th></tr>'
    for name, cost in COSTS.items():
        yield (
            f'<tr><td>{name}</td><td>{cost.ns}</td><td class="left">{escape(cost.what)}</td>'
            f'<td class="left">{escape(cost.source)}</td></tr>'
        )
    yield "</table></div>"
