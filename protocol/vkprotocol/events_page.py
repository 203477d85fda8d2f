"""docs/events.md: the table of the events as documentation."""

from __future__ import annotations

from vkprotocol.events import EVENTS, FIELDS


def markdown() -> str:
    """The table as documentation."""
    lines = ["| Event | Fields | Level | Meaning | DragonFly |", "| --- | --- | --- | --- | --- |"]
    for event in EVENTS.values():
        fields = " ".join(field.name for field in event.fields)
        lines.append(
            f"| `{event.name}` | {fields} | {event.level} | {event.meaning} | {event.counterpart} |"
        )
    lines += ["", "| Field | Type | Meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in FIELDS.items()]
    return "\n".join(lines) + "\n"
