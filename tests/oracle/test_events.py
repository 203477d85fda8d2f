"""The event table, which docs, log lines and validation come from."""

from __future__ import annotations

import pytest
from vkprotocol.events import EVENTS, FIELDS, KINDS, record, validate

from tests.docs.events_page import markdown


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.name)
def test_an_event_is_complete(event) -> None:  # type: ignore[no-untyped-def]
    assert event.meaning
    assert event.counterpart
    assert event.level in ("debug", "info", "warning", "error")
    assert len({field.name for field in event.fields}) == len(event.fields)
    for field in event.fields:
        assert field.kind in KINDS
        assert field.meaning


def test_no_field_is_left_over() -> None:
    used = {field.name for event in EVENTS.values() for field in event.fields}

    assert set(FIELDS) <= used


@pytest.mark.parametrize(
    ("name", "args", "complaint"),
    [
        ("page.free", (1, 2), None),
        ("pte.write", ("0.3", 4096, 0, 1, "enter"), None),
        ("page.free", (1,), "page.free: 1 fields, not 2 (pfn gen)"),
        ("page.free", (1, "2"), "page.free: gen is '2', not int"),
        ("page.free", (1, True), "page.free: gen is True, not int"),
        ("mem.cmpset", (0, 1, 0, 3, 0, 1, 1, 0), "mem.cmpset: ok is 1, not bool"),
        ("pte.write", (1.5, 0, 0, 0, ""), "pte.write: pmap is 1.5, not id"),
        ("no.such", (), "no.such: no such event"),
    ],
)
def test_validation(name: str, args: tuple[object, ...], complaint: str | None) -> None:
    assert validate(name, args) == complaint


def test_a_record_names_its_fields() -> None:
    assert record("page.free", (1, 2)) == {"pfn": 1, "gen": 2}


def test_the_documentation_has_every_event_and_field() -> None:
    text = markdown()

    for event in EVENTS.values():
        assert f"| `{event.name}` |" in text
    for field in FIELDS:
        assert f"| `{field}` |" in text
