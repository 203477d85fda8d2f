"""The comparison as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vkemu.compare.axes import AXES
from vkemu.compare.claims import Judged
from vkemu.compare.costs import COSTS
from vkemu.compare.measure import Series

AT_LARGEST = (
    "visited", "written", "flushes", "ipis", "refaults", "left", "waits", "retries", "exits",
    "loads", "rmap_bytes", "pinned",
)  # fmt: skip


def lines(found: Sequence[Series], claims: Sequence[Judged]) -> Iterator[str]:
    for name, axis in AXES.items():
        rows = [series for series in found if series.axis == name]
        if rows:
            yield f"{name}: {axis.what}"
            yield from _table(rows)
            yield ""
    yield "left: translations that were to go and are still there; those of `wired` are pinned"
    yield "time is virtual, from counts and these costs:"
    for name, cost in COSTS.items():
        yield f"  {name:<9} {cost.ns:>5} ns  {cost.what}"
    if claims:
        yield ""
        yield "what the analysis says, and what was measured:"
        yield from map(_claim, claims)


def _table(rows: Sequence[Series]) -> Iterator[str]:
    sizes = [sample.size for sample in rows[0].samples]
    shown = sizes if len(sizes) <= 4 else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
    largest = f"at n = {sizes[-1]}:"
    head = ["policy", *(f"n={n}" for n in shown), "growth", largest, *AT_LARGEST]
    body = [
        [
            series.policy,
            *(duration(s.ns) for s in series.samples if s.size in shown),
            series.growth,
            "",
            *(str(series.samples[-1].counts[count]) for count in AT_LARGEST),
        ]
        for series in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    for cells in (head, *body):
        first = cells[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        yield "  " + "  ".join((first, *rest)).rstrip()


def duration(ns: int) -> str:
    if ns < 10_000:
        return f"{ns} ns"
    return f"{ns // 1000} us" if ns < 10_000_000 else f"{ns // 1_000_000} ms"


def _claim(judged: Judged) -> str:
    claim = judged.claim
    about = "" if claim.count == "ns" else f" ({claim.count})"
    text = (
        f"  {claim.policy} along {claim.axis}{about}: {claim.section} says {claim.growth} "
        f'("{claim.says}"), measured {judged.measured}'
    )
    if judged.agrees:
        return text + ": agrees"
    return text + (f": {claim.why}" if claim.why else ": differs")
