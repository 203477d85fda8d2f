"""`vkemu log diff A B`: where two runs part, with what came before and after.

Two runs of one schedule write the same lines; the first line that differs is where the schedule,
or the code, did. The run's own name is not compared.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import zip_longest

from vkemu.inspect.reader import Log
from vkemu.inspect.show import COLUMNS, row
from vkemu.record.narrate import Event

IGNORED = ("run",)


@dataclass(slots=True)
class Difference:
    """The first one. `a` and `b` go on from it; an empty one means that run was over."""

    index: int
    before: list[Event]
    a: list[Event] = field(default_factory=list)
    b: list[Event] = field(default_factory=list)

    @property
    def fields(self) -> list[str]:
        """Which fields of the first differing pair differ."""
        if not self.a or not self.b:
            return []
        one, other = self.a[0], self.b[0]
        return [name for name in one | other if name not in IGNORED and
                one.get(name) != other.get(name)]  # fmt: skip


def same(a: Event | None, b: Event | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.keys() != b.keys():
        return False
    return all(value == b[name] for name, value in a.items() if name not in IGNORED)


def first_difference(a: Log, b: Log, context: int = 5) -> Difference | None:
    """None when the runs are equal."""
    before: deque[Event] = deque(maxlen=context)
    pairs = zip_longest(a.events(), b.events())
    for index, (one, other) in enumerate(pairs):
        if same(one, other):
            assert one is not None
            before.append(one)
            continue
        found = Difference(index, list(before))
        for _ in range(context):
            if one is not None:
                found.a.append(one)
            if other is not None:
                found.b.append(other)
            one, other = next(pairs, (None, None))
        return found
    return None


def report(found: Difference, a: Log, b: Log) -> str:
    lines = [f"the runs part at event {found.index}"]
    if found.fields:
        lines[0] += f": {', '.join(found.fields)}"
    lines += [f"  {row(event, COLUMNS)}" for event in found.before]
    for sign, log, events in (("-", a, found.a), ("+", b, found.b)):
        lines.append(f"{sign} {log.path}")
        lines += [f"{sign} {row(event, COLUMNS)}" for event in events]
        if not events:
            lines.append(f"{sign} (over)")
    return "\n".join(lines)
