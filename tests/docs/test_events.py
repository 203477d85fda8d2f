"""docs/events.md is the table of the events, whole."""

from __future__ import annotations

from vkprotocol.events import EVENTS

from tests.docs.events_page import PAGE, markdown


def test_the_page_holds_the_table() -> None:
    assert PAGE.read_text().endswith(markdown())


def test_the_table_names_every_event() -> None:
    table = markdown()

    assert all(f"`{name}`" in table for name in EVENTS)
