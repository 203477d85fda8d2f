"""`vkemu log timeline`: one column an actor, one row an event, time downwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Final

from vkemu.record.narrate import Event, narrate

GAP: Final = "  "


def actors_of(events: Iterable[Event]) -> list[str]:
    """The actors, in the order of their first event."""
    return list(dict.fromkeys(event["actor"] for event in events))


def lane_width(actors: int, columns: int, head: int) -> int:
    """What each of so many lanes gets of a page so wide."""
    room = columns - head - len(GAP) * actors
    lane_min = 16
    lane_max = 44
    return max(lane_min, min(lane_max, room // max(1, actors)))


def timeline(events: list[Event], columns: int = 120) -> Iterator[str]:
    """The rows. A text longer than its lane goes on below it."""
    actors = actors_of(events)
    lane = lane_width(len(actors), columns, head=20)
    heads = "".join(GAP + actor[:lane].ljust(lane) for actor in actors)
    number = "step" if events and events[0].get("step") is not None else "seq"
    yield f"{number:>7} {'t':>12}{heads}".rstrip()
    for event in events:
        lead = f"{event[number]:>7} {event['t']:>12}"
        indent = (GAP + " " * lane) * actors.index(event["actor"]) + GAP
        for part in wrap(narrate(event), lane) or [""]:
            yield f"{lead}{indent}{part}"
            lead = " " * len(lead)
