r"""ShiViz: event, host and vector clock, which is its default parser

    (?<event>.*)\n(?<host>\S*) (?<clock>{.*})

A clock in our log counts steps; ShiViz wants every host to count its own events from 1, so the
counts are renumbered, which keeps happens-before as it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import IO

import orjson

from vkemu.record.narrate import Event, narrate
from vkemu.verdict import UsageError


def export(events: Iterable[Event], out: IO[bytes]) -> None:
    counts: dict[str, list[int]] = {}  # actor -> its own clock at each of its events
    for event in events:
        clock = event.get("vc")
        actor = event["actor"]
        if clock == {}:
            continue  # the set-up, which happens before everything
        if not isinstance(clock, dict) or actor not in clock:
            raise UsageError(
                "vkemu log export: shiviz needs vector clocks (`vc`),"
                f" which event {event['seq']} does not have"
            )
        own = counts.setdefault(actor, [])
        own.append(clock[actor])
        numbered = {
            _host(other): len(own) if other == actor else seen
            for other, count in clock.items()
            if (seen := bisect_right(counts.get(other, ()), count))
        }
        out.write(narrate(event).encode() + b"\n")
        out.write(_host(actor).encode() + b" " + orjson.dumps(numbered) + b"\n")


def _host(actor: str) -> str:
    return "_".join(actor.split())
