"""docs/events.md is the table of the events, whole."""

from __future__ import annotations

from pathlib import Path

from vkprotocol.events import EVENTS
from vkprotocol.events_page import markdown

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def test_the_page_holds_the_table() -> None:
    assert PAGE.read_text().endswith(markdown().rstrip() + "\n")


def test_the_table_names_every_event() -> None:
    table = markdown()

    assert all(f"`{name}`" in table for name in EVENTS)
