"""A Mermaid sequence diagram, for documentation: short runs, or a filtered part of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from vkemu.record.narrate import Event, narrate
from vkemu.verdict import UsageError


def export(events: Iterable[Event], out: IO[bytes]) -> None:
    drawn = []
    events_max = 400
    for event in events:
        drawn.append(event)
        if len(drawn) > events_max:
            raise UsageError(
                f"vkemu log export: more than {events_max} events make no readable diagram,"
                " expected a filter"
            )
    actors = list(dict.fromkeys(event["actor"] for event in drawn))
    names = {actor: f"a{i}" for i, actor in enumerate(actors)}
    lines = ["sequenceDiagram"]
    lines += [f"    participant {names[actor]} as {_plain(actor)}" for actor in actors]
    seen: dict[str, dict[str, int]] = {}
    for event in drawn:
        cause = _cause(event, seen)
        here, text = names[event["actor"]], _plain(narrate(event))
        if cause in names:
            lines.append(f"    {names[cause]}-->>{here}: {text}")
        else:
            lines.append(f"    Note over {here}: {text}")
    out.write(("\n".join(lines) + "\n").encode())


def _cause(event: Event, seen: dict[str, dict[str, int]]) -> str:
    """The actor whose step this one waited for: the one it newly knows most about."""
    clock = event.get("vc") or {}
    actor = event["actor"]
    known = seen.get(actor, {})
    news = {a: n - known.get(a, 0) for a, n in clock.items() if a != actor and n > known.get(a, 0)}
    seen[actor] = dict(clock)
    return max(news, key=lambda a: (news[a], a), default="")


def _plain(text: str) -> str:
    """Without what Mermaid would read as syntax."""
    return text.replace(";", ",").replace("#", "no. ").replace("%", " percent ")
