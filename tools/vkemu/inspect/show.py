"""`vkemu log show`: events one a line, in columns that stay where they are."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO, Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from vkemu.inspect.filter import Filter
from vkemu.inspect.reader import BadLog, Line, Log, is_compressed
from vkemu.record.narrate import Event, narrate, value_text

COLUMNS: Final = ("step", "t", "actor", "event", "text")
# Widths of what is usual; a longer value pushes its own line only.
WIDTHS: Final = {
    "seq": 7, "t": 12, "ts": 30, "run": 12, "step": 7, "actor": 16, "cpu": 3, "guest": 8,
    "event": 15, "level": 7,
}  # fmt: skip
RIGHT: Final = frozenset({"seq", "t", "step", "cpu"})
# One colour a subject, the part of the name before the dot.
COLOURS: Final = {
    "page": "yellow", "pager": "yellow", "pageout": "magenta", "oom": "bold red", "pte": "cyan",
    "tlb": "cyan", "ipi": "cyan", "vpte": "green", "fault": "green", "ilock": "blue",
    "map": "blue", "inval": "bold red", "setmap": "bold red", "panic": "bold white on red",
    "mem": "dim", "guest": "bold green",
}  # fmt: skip


def row(event: Event, columns: Sequence[str]) -> str:
    """The event in these columns; `text` is the event in words."""
    cells = []
    for column in columns:
        if column == "text":
            cells.append(narrate(event))
            continue
        value = value_text(column, event.get(column))
        width = WIDTHS.get(column, len(column))
        cells.append(value.rjust(width) if column in RIGHT else value.ljust(width))
    return "  ".join(cells).rstrip()


def numbered(columns: Sequence[str], event: Event) -> Sequence[str]:
    """People count in steps; where the log has none, in events."""
    if tuple(columns) == COLUMNS and event.get("step") is None:
        return ("seq", *columns[1:])
    return columns


def heading(columns: Sequence[str]) -> str:
    cells = []
    for column in columns:
        width = WIDTHS.get(column, len(column))
        cells.append(column.rjust(width) if column in RIGHT else column.ljust(width))
    return "  ".join(cells).rstrip()


def style(event: Event) -> str:
    return COLOURS.get(str(event["event"]).partition(".")[0], "")


def selected(
    log: Log, terms: Filter, first: int | None = None, last: int | None = None
) -> Iterator[Event]:
    """The matching events, at most the first or the last so many."""
    events = terms.events(log)
    if last is not None:
        yield from deque(events, maxlen=last)
    else:
        yield from islice(events, first)


def show(
    log: Log, terms: Filter, console: Console, columns: Sequence[str], **bounds: int | None
) -> int:
    """Print the matching events; how many there were."""
    count = 0
    for event in selected(log, terms, **bounds):
        if count == 0:
            columns = numbered(columns, event)
            console.print(Text(heading(columns), style="bold"), soft_wrap=True)
        console.print(Text(row(event, columns), style=style(event)), soft_wrap=True)
        count += 1
    return count


def follow(log: Log, terms: Filter) -> Iterator[Event]:
    """The matching events, and those still to come, until interrupted."""
    path = log.path
    if is_compressed(path):
        raise BadLog(f"{path}: a compressed log cannot be followed")
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    check = msgspec.json.Decoder(Line).decode
    with path.open("rb") as file:
        for number, line in enumerate(arriving(file), 1):
            try:
                check(line)
            except msgspec.MsgspecError as error:
                log.malformed(number, line, error)
                continue
            event = decode(line)
            if terms.matches(event):
                yield event


def arriving(file: IO[bytes]) -> Iterator[bytes]:
    """Whole lines, waiting for more at the end."""
    rest = b""
    poll_seconds = 0.2
    while True:
        piece = file.readline()
        if not piece:
            time.sleep(poll_seconds)
            continue
        rest += piece
        if rest.endswith(b"\n"):
            yield rest
            rest = b""
