"""The matrix as text: a row a test, a column a policy, then one line for each failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vkemu.matrix.cell import Cell

WIDTH = 120
COLUMN = 8
LEGEND = (
    "FAIL: a witness, below, replays.  ok N: exhausted, N interleavings that differ.",
    "bnd: no failure found within the bound, below.  -: does not apply, for the reason below.",
    "?: interrupted before it was decided.",
)


def render(cells: Sequence[Cell]) -> str:
    return "\n".join(lines(cells)) + "\n"


def lines(cells: Sequence[Cell]) -> Iterator[str]:
    columns = list(dict.fromkeys(cell.policy for cell in cells))
    rows: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.name, {})[cell.policy] = cell
    label = min(max((len(name) for name in rows), default=3), WIDTH - COLUMN * len(columns))
    yield from _heading(columns, label)
    for name, row in rows.items():
        texts = (_text(row.get(policy)) for policy in columns)
        yield f"{name[:label]:<{label}}" + "".join(f"{text:>{COLUMN}}" for text in texts)
    yield ""
    yield from LEGEND
    yield trees_line(cells)
    yield from _notes(cells)


def trees_line(cells: Sequence[Cell]) -> str:
    """trees: 5.4 pv_entry; 2020 extent_scan, removed; ..."""
    of: dict[str, dict[str, None]] = {}
    for cell in cells:
        of.setdefault(cell.tree, {})[cell.policy] = None
    return "trees: " + "; ".join(f"{tree} {', '.join(of[tree])}" for tree in sorted(of))


def _heading(columns: Sequence[str], label: int) -> Iterator[str]:
    split = [_split(policy) for policy in columns]
    for i in (0, 1):
        yield (" " * label + "".join(f"{words[i]:>{COLUMN}}" for words in split)).rstrip()


def _split(policy: str) -> tuple[str, str]:
    """A name on two lines."""
    first, _, second = policy.partition("_")
    if second:
        return f"{first}_", second
    return ("", policy) if len(policy) < COLUMN else (f"{policy[:5]}-", policy[5:])


def _text(cell: Cell | None) -> str:
    if cell is None:
        return "?"
    match cell.verdict:
        case "fail":
            return "FAIL"
        case "pass":
            return f"ok {cell.executions}"
        case "bounded":
            return "bnd"
        case _:
            return "-"


def _notes(cells: Sequence[Cell]) -> Iterator[str]:
    for title, verdict in (("bounded", "bounded"), ("n/a", "n/a")):
        reasons: dict[tuple[str, str], list[str]] = {}
        for cell in cells:
            if cell.verdict == verdict:
                # What applies to a whole policy is said once.
                reasons.setdefault((cell.policy, cell.reason), []).append(cell.name)
        if reasons:
            yield f"\n{title}:"
        for (policy, reason), names in reasons.items():
            shown = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]} ({len(names)})"
            yield f"  {shown} [{policy}] {reason}"
    failed = [cell for cell in cells if cell.verdict == "fail"]
    if failed:
        yield "\nfail (vkemu replay TOKEN):"
    for cell in failed:
        yield f"  {cell.name} [{cell.policy}] {cell.reason}"
        yield f"    {cell.token}"
