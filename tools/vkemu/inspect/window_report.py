"""What `vkemu log windows` prints: a table, a histogram of each kind, and the widest windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vkemu.inspect.windows import KINDS, Window

BARS: Final = " ▏▎▍▌▋▊▉█"


def bar(part: float, width: int) -> str:
    """`part` of `width` columns, to an eighth of one."""
    eighths = round(part * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (BARS[rest] if rest else "")


def histogram(widths: list[int]) -> Iterator[str]:
    """Widths in powers of two."""
    buckets: dict[int, int] = {}
    for width in widths:
        buckets[width.bit_length()] = buckets.get(width.bit_length(), 0) + 1
    most = max(buckets.values())
    for bits in range(min(buckets), max(buckets) + 1):
        low, high = (1 << bits) >> 1, (1 << bits) - 1
        label = f"{low}" if low >= high else f"{low}-{high}"
        count = buckets.get(bits, 0)
        yield f"  {label:>15} {count:>8} {bar(count / most, 40)}".rstrip()


def report(found: list[Window], worst: int) -> str:
    """The table, a histogram of each kind, and the widest windows."""
    lines = [
        f"{'window':<15} {'count':>8} {'median':>8} {'p99':>8} {'max':>8} {'max ns':>14}  open"
    ]
    by_kind = {kind: [w for w in found if w.kind == kind] for kind in KINDS}
    for kind, some in by_kind.items():
        if not some:
            lines.append(f"{kind:<15} {0:>8}")
            continue
        widths = sorted(w.steps for w in some)
        still = sum(w.closed_by is None for w in some)
        lines.append(
            f"{kind:<15} {len(some):>8} {widths[len(widths) // 2]:>8}"
            f" {widths[len(widths) * 99 // 100]:>8} {widths[-1]:>8}"
            f" {max(w.ns for w in some):>14,}  {still or '-'}"
        )
    for kind, some in by_kind.items():
        if some:
            lines += ["", f"{kind}, width in steps:", *histogram([w.steps for w in some])]
            lines.append(f"  the widest {min(worst, len(some))}:")
            widest = sorted(some, key=lambda w: (-w.steps, w.opened))[:worst]
            lines += [f"    {describe(w)}" for w in widest]
    return "\n".join(lines)


def describe(window: Window) -> str:
    end = f"seq {window.closed} {window.closed_by}" if window.closed_by else "never closed"
    return (
        f"{window.steps:>8} {window.ns:>12,} ns  {window.what}:"
        f" seq {window.opened} {window.opened_by} -> {end}"
    )
