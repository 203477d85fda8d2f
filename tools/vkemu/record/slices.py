"""Which events are the two ends of one thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from vkemu.record.narrate import Event, span

Phase: TypeAlias = Literal["begin", "end", "instant"]

# Begin -> end. CALLS nest like a stack; LOCKS are held across them and need not.
CALLS: Final = {
    "fault.begin": "fault.end",
    "inval.begin": "inval.end",
    "setmap.begin": "setmap.end",
    "syscall.begin": "syscall.end",
    "run.enter": "run.exit",
}
LOCKS: Final = {"ilock.enter": "ilock.exit", "map.lock": "map.unlock"}
_ENDS: Final = {end: begin for begin, end in {**CALLS, **LOCKS}.items()}


@dataclass(frozen=True, slots=True)
class Mark:
    """An event and what it is in its actor's lane: `lock` names the lock it takes or drops."""

    phase: Phase
    event: Event
    lock: str | None = None


def lock_of(event: Event) -> str | None:
    """The lock an event takes or drops."""
    if event["event"].startswith("ilock."):
        return f"ilock {span(event)}@{event['map']}"
    if event["event"].startswith("map."):
        return f"map {event['map']}"
    return None


def marks(events: Iterable[Event]) -> Iterator[Mark]:
    """The events with their ends matched. An end without its beginning is an instant."""
    stacks: dict[Any, list[str]] = {}
    held: set[tuple[Any, str | None]] = set()
    for event in events:
        name, actor = event["event"], event["actor"]
        if name in CALLS:
            stacks.setdefault(actor, []).append(name)
            yield Mark("begin", event)
        elif name in LOCKS:
            lock = actor, lock_of(event)
            # A second map.lock is an upgrade or downgrade of the one held.
            yield Mark("instant" if lock in held else "begin", event, lock[1])
            held.add(lock)
        elif name not in _ENDS:
            yield Mark("instant", event)
        elif _ENDS[name] in LOCKS:
            lock = actor, lock_of(event)
            yield Mark("end" if lock in held else "instant", event, lock[1])
            held.discard(lock)
        else:
            stack = stacks.get(actor, [])
            matched = bool(stack) and stack[-1] == _ENDS[name]
            if matched:
                stack.pop()
            yield Mark("end" if matched else "instant", event)
