"""The line that is made from a template is the one that `head` and `render` make."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vkemu.record.log import EventLog
from vkprotocol.effects import CLOCK, CURTHREAD, Thread
from vkprotocol.events import EVENTS

WORDS = st.integers(-(1 << 63), (1 << 64) - 1) | st.integers(1 << 64, 1 << 200)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
VALUES = {
    "int": WORDS,
    "str": TEXTS,
    "id": st.integers(-1, 9) | TEXTS,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=80),
}
HAPPENED = st.sampled_from(sorted(EVENTS)).flatmap(
    lambda name: st.tuples(
        st.just(name), st.tuples(*(VALUES[field.kind] for field in EVENTS[name].fields))
    )
)


@pytest.fixture(autouse=True)
def clock() -> Iterator[None]:
    before = CLOCK[0]
    yield
    CURTHREAD[0], CLOCK[0] = None, before


async def nothing() -> None:
    return


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3 << 30), HAPPENED), max_size=30))
def test_a_line_is_what_the_processors_would_make(happened: list[tuple[int, int, Any]]) -> None:
    coros = [nothing() for _ in range(2)]
    threads = [None, *(Thread(n, f'"thread" {n}', coro) for n, coro in enumerate(coros))]
    written = []
    for processors in ([], [lambda _logger, _level, event: event]):
        out = io.BytesIO()
        log = EventLog(out, "a run", processors=processors)
        log.place = lambda thread: (thread.tid or None, thread.name)
        for who, t, (name, args) in happened:
            CURTHREAD[0], CLOCK[0] = threads[who], t
            log.emit(name, *args)
        written.append(out.getvalue())
    for coro in coros:
        coro.close()

    assert written[0] == written[1]


def test_every_kind_of_event_has_its_line() -> None:
    """Numbers of more than 64 bits too, and true beside 1."""
    CURTHREAD[0], CLOCK[0] = None, 0
    values: dict[str, list[Any]] = {
        "int": [1, 1 << 64, -1],
        "str": ["\x1b", "é", "1"],
        "id": [1, "vk0", -1],
        "bool": [True, False, True],
        "bytes": [b"\0" * 4096, b"1", b""],
    }
    written = []
    for processors in ([], [lambda _logger, _level, event: event]):
        out = io.BytesIO()
        log = EventLog(out, "a run", processors=processors)
        for event in EVENTS.values():
            for n in range(3):
                log.emit(event.name, *(values[field.kind][n] for field in event.fields))
        written.append(out.getvalue().splitlines())

    assert written[0] == written[1]
    assert len(written[0]) == 3 * len(EVENTS)
