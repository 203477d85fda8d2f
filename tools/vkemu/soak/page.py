"""A soak as one self-contained HTML page: a plot over time for each thing that was watched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

from vkemu.compare.page import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, STYLE, TOP, WIDTH
from vkemu.soak.samples import Sample
from vkemu.soak.verdict import verdict_line

# Title, and the lines in it: field, label, what a unit of it is.
PLOTS: Final = (
    ("Resident memory, MiB", (("resident_bytes", "resident", 1 << 20),)),
    ("Queues", (("queued", "requests", 1), ("unsent", "KiB unsent", 1 << 10))),
    ("What a quiet guest waits for an answer, ms", (("latency", "median", 1e-3),
                                                    ("worst", "worst", 1e-3))),
    ("Free pages of the host", (("free_pages", "free", 1),)),
    ("Guests, kernel threads, descriptors", (("guests", "guests", 1), ("threads", "threads", 1),
                                             ("descriptors", "descriptors", 1))),
    ("Guests that have gone", (("served", "gone", 1),)),
)  # fmt: skip


def render(report: dict[str, Any]) -> str:
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>vkemu soak</title><style>{STYLE}</style></head><body>",
            f"<h1>Soak of {escape(report['policy'])}</h1>",
            f"<p><strong>{escape(verdict_line(report))}</strong></p>",
            *(f"<p>{escape(reason)}</p>" for reason in report["reasons"]),
            *_plots(report["samples"]),
            "<h2>Visits</h2>",
            *_table(report["visits"]),
            "<h2>Counters of the host</h2>",
            *_table({**report["counts"], **report["counters"]}),
            "</body></html>\n",
        )
    )


def _plots(samples: Sequence[Sample]) -> Iterator[str]:
    for title, rows in PLOTS if samples else ():
        yield f"<h2>{title}</h2>"
        yield from _plot(title, samples, rows)


def _plot(
    title: str, samples: Sequence[Sample], rows: tuple[tuple[str, str, float], ...]
) -> Iterator[str]:
    end = samples[-1].seconds or 1.0
    top = max(getattr(s, field) / unit for s in samples for field, _, unit in rows) or 1.0
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}, over seconds">'
    grid = 4
    for n in range(grid + 1):
        x, y = LEFT + wide * n / grid, TOP + high * (1 - n / grid)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * n / grid:.4g}</text>'
        time = f"{end * n / grid:.3g} s"
        yield f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{time}</text>'
    for place, (field, label, unit) in enumerate(rows):
        stroke = COLOURS[place]
        points = " ".join(
            f"{LEFT + wide * s.seconds / end:.1f},"
            f"{TOP + high * (1 - getattr(s, field) / unit / top):.1f}"
            for s in samples
        )
        yield f'<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="1.5"/>'
        yield (
            f'<text x="{WIDTH - RIGHT + 8}" y="{TOP + 14 * (place + 1)}" '
            f'style="fill:{stroke}">{label}</text>'
        )
    yield "</svg>"


def _table(rows: dict[str, int]) -> Iterator[str]:
    yield "<table>"
    for name, value in rows.items():
        yield f"<tr><td>{escape(name)}</td><td>{value:,}</td></tr>"
    yield "</table>"
