"""What `vkemu log windows` prints: a table, a histogram of each kind, and the widest windows."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from vkemu.inspect.windows import KINDS, Bracket, Window
from vkemu.record.rundir import SUMMARY


def bar(part: float, width: int) -> str:
    """`part` of `width` columns, to an eighth of one."""
    eighths = round(part * width * 8)
    whole, rest = divmod(eighths, 8)
    bars = " ▏▎▍▌▋▊▉█"
    return "█" * whole + (bars[rest] if rest else "")


def histogram(widths: Counter[int]) -> Iterator[str]:
    """Widths in powers of two."""
    buckets: Counter[int] = Counter()
    for width, count in widths.items():
        buckets[width.bit_length()] += count
    most = max(buckets.values())
    for bits in range(min(buckets), max(buckets) + 1):
        low, high = (1 << bits) >> 1, (1 << bits) - 1
        label = f"{low}" if low >= high else f"{low}-{high}"
        count = buckets[bits]
        yield f"  {label:>15} {count:>8} {bar(count / most, 40)}".rstrip()


class Tally:
    """The windows of one kind: how many of each width, and the widest. It keeps no others."""

    def __init__(self, worst: int) -> None:
        self.worst = worst
        self.widths: Counter[int] = Counter()
        self.still = 0  # open at the end
        self.max_ns = 0
        self.widest: list[Window] = []

    def add(self, window: Window) -> None:
        self.widths[window.steps] += 1
        self.still += window.closed_by is None
        self.max_ns = max(self.max_ns, window.ns)
        if len(self.widest) < self.worst or (
            self.worst and _by_width(window) < _by_width(self.widest[-1])
        ):
            insort(self.widest, window, key=_by_width)
            del self.widest[self.worst :]

    def quantile(self, percent: int) -> int:
        """The width that so many per cent of the windows do not reach."""
        rank = self.widths.total() * percent // 100
        for width in sorted(self.widths):
            rank -= self.widths[width]
            if rank < 0:
                return width
        raise ValueError("no windows")


def _by_width(window: Window) -> tuple[int, int]:
    return -window.steps, window.opened


class Report:
    """The table, a histogram of each kind, and the widest windows."""

    def __init__(self, worst: int) -> None:
        self.tallies = {kind: Tally(worst) for kind in KINDS}

    def add(self, window: Window) -> None:
        self.tallies[window.kind].add(window)

    def __str__(self) -> str:
        lines = [
            f"{'window':<15} {'count':>8} {'median':>8} {'p99':>8} {'max':>8} {'max ns':>14}  open"
        ]
        for kind, tally in self.tallies.items():
            if not tally.widths:
                lines.append(f"{kind:<15} {0:>8}")
                continue
            lines.append(
                f"{kind:<15} {tally.widths.total():>8} {tally.quantile(50):>8}"
                f" {tally.quantile(99):>8} {max(tally.widths):>8}"
                f" {tally.max_ns:>14,}  {tally.still or '-'}"
            )
        for kind, tally in self.tallies.items():
            if tally.widths:
                lines += ["", f"{kind}, width in steps:", *histogram(tally.widths)]
                lines.append(f"  the widest {len(tally.widest)}:")
                lines += [f"    {describe(window)}" for window in tally.widest]
        return "\n".join(lines)


def of_failure(log: Path) -> str:
    """The window that the run failed through, as its summary.json has it; "" without one."""
    try:
        summary = msgspec.json.decode((log.parent / SUMMARY).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError):
        return ""
    window = summary.get("window")
    if not isinstance(window, dict):
        return ""
    bracket = Bracket(window["opens"], window["closes"], window["kind"], window["staysOpen"])
    moved = f"\n moved:  {summary['moved']}" if "moved" in summary else ""
    return f"failure: {summary['failure']}\n window: {bracket}{moved}"


def describe(window: Window) -> str:
    end = f"{_at(window.closed_step, window.closed)} {window.closed_by}"
    return (
        f"{window.steps:>8} {window.ns:>12,} ns  {window.what}:"
        f" {_at(window.opened_step, window.opened)} {window.opened_by}"
        f" -> {end if window.closed_by else 'never closed'}"
    )


def _at(step: int | None, seq: int) -> str:
    return f"seq {seq}" if step is None else f"step {step}"
