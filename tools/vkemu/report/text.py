"""failure.txt: the form kernel developers read and paste, after lockdep and KCSAN.

Header, one column an actor, rows that do not matter folded, the window bracketed in the margin,
its measured width, what closes it, and the command that replays it. Never wider than 120 columns,
and as narrow as a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Final

from vkemu.inspect.windows import ACCESSES, Bracket
from vkemu.report.failure import Access, Failure
from vkemu.report.recording import switches
from vkemu.report.relevance import ESSENTIAL, Row, rows_of, threshold

COLUMNS: Final = 120
ROWS_MAX: Final = 60
GAP: Final = "  "
DONE: Final = "<- harm done"


def render(failure: Failure, columns: int = COLUMNS) -> str:
    narrowest = 40
    columns = min(max(columns, narrowest), COLUMNS)
    lines = [
        *header(failure, columns), "", *story(failure, columns), "", *footer(failure, columns),
    ]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines) + "\n"


def header(failure: Failure, columns: int = COLUMNS) -> Iterator[str]:
    suffix = f"   (invariant {failure.invariant})" if failure.invariant else ""
    yield from folded(f"BUG: vkemu: {failure.message}{suffix}", " ", columns)
    yield from (part for line in failure.detail for part in folded(line, " ", columns))
    yield from access_lines(failure.accesses, columns)
    yield from (
        part for line in failure.code for part in folded(f" code:   {line}", " " * 9, columns)
    )
    if failure.frame is not None:
        owners = failure.owners_of_frame()
        if failure.owners is not None:
            owners.insert(0, f"owner then {failure.owners[0]}, now {failure.owners[1]}")
        yield from folded(f" frame: page {failure.frame}; {'; '.join(owners)}", " " * 8, columns)
    steps = [step for step in failure.steps if step.op or step.events]
    actors = {step.actor for step in steps if step.number}
    events = sum(len(step.events) for step in steps)
    counts = (
        f"{len(failure.steps) - 1} steps, {len(actors)} actors,"
        f" {switches(failure.steps)} context switches, {events} events"
    )
    context = ", ".join(f"{name} {value}" for name, value in failure.context.items())
    yield from folded(f" run:   {counts}" + (f"; {context}" if context else ""), " " * 8, columns)


def access_lines(accesses: tuple[Access, ...], columns: int = COLUMNS) -> Iterator[str]:
    """The accesses under each other, in columns."""
    cells = [(f"{a.role}:", a.actor, a.function, a.what, f"step {a.step}") for a in accesses]
    widths = [max((len(row[i]) for row in cells), default=0) for i in range(5)]
    widths[0] = max(6, widths[0])
    for access, row in zip(accesses, cells, strict=True):
        line = " " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True) if w)
        whole = f"{line.rstrip()}  {access.where}".rstrip()
        if len(whole) <= columns:
            yield whole
        else:
            yield from folded(line.rstrip(), " " * 8, columns)
            yield from folded(f"        {access.where}", " " * 8, columns)


def folded(text: str, indent: str, columns: int = COLUMNS) -> list[str]:
    return wrap(
        text, columns, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True
    ) or [""]  # fmt: skip


def story(failure: Failure, columns: int = COLUMNS) -> Iterator[str]:
    """The columns."""
    rows = list(rows_of(failure))
    least = threshold(rows, ROWS_MAX)
    shown = [row for row in rows if row.weight >= least]
    lanes_max = 5
    lane_min = 20  # of fewer columns than 120
    lead = 9  # margin and step number
    lanes = lanes_of(failure, shown, min(lanes_max, max(2, (columns - lead) // lane_min)))
    lane_max = 46
    width = min(lane_max, (columns - lead) // max(1, len(lanes)) - len(GAP))
    yield " " * lead + GAP.join(lane[:width].ljust(width) for lane in lanes)
    functions: dict[str, str] = {}
    hidden = 0
    bracket = failure.bracket
    marked: set[int] = set()
    for row in rows:
        if row.weight < least:
            hidden += row.step.number > 0
            continue
        if hidden:
            yield fold_line(hidden, bracket, row)
            hidden = 0
        yield from row_lines(row, lanes, width, functions, bracket, marked, columns)
    if hidden:
        yield fold_line(hidden, None, rows[-1])


def lanes_of(failure: Failure, shown: list[Row], most: int) -> list[str]:
    """The columns' actors; those of the accesses have one, the last takes all that do not."""
    actors = list(dict.fromkeys(row.actor for row in shown))
    if len(actors) <= most:
        return actors
    first = list(dict.fromkeys(access.actor for access in failure.accesses))
    heavy = [row.actor for row in shown if row.weight == ESSENTIAL]
    kept = list(dict.fromkeys([*first, *heavy, *actors]))[: most - 1]
    return [*(actor for actor in actors if actor in kept), "others"]


def margin(number: int, bracket: Bracket | None) -> str:
    """`.` where the window opens, `'` where it closes, `|` between."""
    if bracket is None or not bracket.opens <= number <= bracket.closes:
        return " "
    if number == bracket.opens:
        return "."
    return "'" if number == bracket.closes else "|"


def closing(bracket: Bracket | None) -> str:
    closes = "<- window closes"
    if bracket is None or not bracket.stays_open:
        return DONE if bracket is not None and bracket.kind == ACCESSES else closes
    harm = "<- harm done, window still open"
    return harm


def fold_line(hidden: int, bracket: Bracket | None, upcoming: Row) -> str:
    inside = bracket is not None and bracket.opens < upcoming.step.number <= bracket.closes
    rows = "row" if hidden == 1 else "rows"
    return f" {'|' if inside else ' '}     ~  {hidden} {rows}"


def row_lines(
    row: Row,
    lanes: list[str],
    width: int,
    functions: dict[str, str],
    bracket: Bracket | None,
    marked: set[int],
    columns: int,
) -> Iterator[str]:
    """A row in its actor's column; its function is named when it is another than before."""
    step = row.step
    text = row.text
    lane = row.actor
    if row.function and functions.get(row.actor) != row.function:
        functions[row.actor] = row.function
        text = f"{row.function}: {text}"
    if lane not in lanes:
        text, lane = f"{row.actor}: {text}", "others"
    note = ""
    mark = margin(step.number, bracket)
    opens = "<- window opens"
    if mark in ".'" and step.number in marked:
        mark = "|" if mark == "." else " "
    elif mark in ".'":
        marked.add(step.number)
        note = opens if mark == "." else closing(bracket)
    indent = (" " * width + GAP) * lanes.index(lane)
    lead = f" {mark}{step.number:>6} "
    parts = wrap(text, width, break_on_hyphens=False) or [""]
    lines = [f"{lead if i == 0 else '         '}{indent}{part}" for i, part in enumerate(parts)]
    yield from noted(lines, note, "|" if mark in ".|" else " ", columns)


def noted(lines: list[str], note: str, bar: str, columns: int) -> Iterator[str]:
    """The lines of a row, the margin drawn through them, the note where there is room for it."""
    lines[1:] = [f" {bar}{line[2:]}" for line in lines[1:]]
    if note and len(lines[0]) + 2 + len(note) > columns:
        lines.append(f" {bar}{note.rjust(columns - 2)}")
    elif note:
        lines[0] = f"{lines[0]}  {note.rjust(columns - 2 - len(lines[0]))}"
    yield from lines


def footer(failure: Failure, columns: int = COLUMNS) -> Iterator[str]:
    bracket = failure.bracket
    if bracket is not None:
        yield from folded(f" window: {bracket}", " " * 9, columns)
    if failure.width is not None:
        yield from folded(f" moved:  {failure.width}", " " * 9, columns)
    if failure.closed_by:
        yield from folded(f" closed by: {'; '.join(failure.closed_by)}", " " * 12, columns)
    elif bracket is not None and bracket.kind != ACCESSES and not bracket.stays_open:
        closing_step = failure.steps[bracket.closes]
        said = f" closed by: {closing_step.actor} at step {bracket.closes}"
        yield from folded(said, " " * 12, columns)
    if failure.replay:
        yield from unbroken(f" replay: {failure.replay}", columns)


def unbroken(command: str, columns: int = COLUMNS) -> Iterator[str]:
    """A command of any length, which a shell still reads as one when it is pasted."""
    while len(command) > columns:
        yield command[: columns - 1] + "\\"
        command = command[columns - 1 :]
    yield command
