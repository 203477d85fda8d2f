"""docs/events.md, of the table of the events: `python -m tests.docs.events_page` writes it anew."""

from __future__ import annotations

from pathlib import Path

from vkprotocol.events import EVENTS, FIELDS

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
HEAD = "| Event | Fields |"


def markdown() -> str:
    """The table as documentation."""
    lines = [f"{HEAD} Level | Meaning | DragonFly |", "| --- | --- | --- | --- | --- |"]
    for event in EVENTS.values():
        fields = " ".join(field.name for field in event.fields)
        lines.append(
            f"| `{event.name}` | {fields} | {event.level} | {event.meaning} | {event.counterpart} |"
        )
    lines += ["", "| Field | Type | Meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in FIELDS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(HEAD)] + markdown())
