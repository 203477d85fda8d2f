"""`vkemu log stats`: what happened how often, and who did it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vkemu.inspect.filter import Filter
from vkemu.inspect.reader import Log
from vkemu.record.rundir import DROPPED


class Columns(msgspec.Struct, gc=False):
    """What is counted."""

    t: int
    actor: str
    event: str


@dataclass(slots=True)
class Stats:
    """Counts of a log. `t_first` and `t_last` are virtual ns."""

    events: int = 0
    dropped: int = 0  # that a live log says it has not
    t_first: int = 0
    t_last: int = 0
    by_event: Counter[str] = field(default_factory=Counter)
    by_actor: Counter[str] = field(default_factory=Counter)

    @property
    def duration_ns(self) -> int:
        return self.t_last - self.t_first

    def as_dict(self) -> dict[str, Any]:
        return {
            "events": self.events,
            "dropped": self.dropped,
            "t_first": self.t_first,
            "t_last": self.t_last,
            "by_event": dict(self.by_event),
            "by_actor": dict(self.by_actor),
        }


def stats(log: Log) -> Stats:
    found = Stats()
    pairs: Counter[tuple[str, str]] = Counter()
    for rows, _ in log.batches(Columns):
        if not rows:
            continue
        if found.events == 0:
            found.t_first = rows[0].t
        found.t_last = rows[-1].t
        found.events += len(rows)
        pairs.update([(row.event, row.actor) for row in rows])
    for (event, actor), count in sorted(pairs.items()):
        found.by_event[event] += count
        found.by_actor[actor] += count
    if found.by_event[DROPPED]:
        # Rare enough to be read again.
        gaps = Filter([f"event={DROPPED}"]).events(log)
        found.dropped = sum(gap["count"] for gap in gaps)
    return found


def report(found: Stats) -> str:
    lines = [
        f"{found.events} events, {len(found.by_actor)} actors, {found.duration_ns:,} ns virtual"
    ]
    if found.dropped:
        lines.append(f"{found.dropped} events more were dropped and are not in the log")
    for title, counts in (("event", found.by_event), ("actor", found.by_actor)):
        lines.append("")
        lines.append(f"{'count':>9}  {title}")
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        lines += [f"{count:>9}  {name}" for name, count in ordered]
    return "\n".join(lines)
