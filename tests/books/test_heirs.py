"""What a frame leaves behind for its next owner is found as it changes hands."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.effects import CURTHREAD
from vkprotocol.events import QUEUES

from tests.books.test_quiet import outcome, wild


def test_a_guest_hands_out_a_frame_that_somebody_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = wild("pv_entry")
    monkeypatch.setattr(machine.books, "check_guest", lambda guest: None)  # it would find it, too
    guests = {guest.proc: guest for guest in machine.guests}

    def hold(proc: Any, frame: int) -> None:
        before, CURTHREAD[0] = CURTHREAD[0], None
        guests[proc].vm_page_queues.pages[frame].hold_count = 1
        CURTHREAD[0] = before

    machine.oracle.tell("guest.free", hold)

    assert "is handed out and held: 1, counted 0" in str(outcome(machine).error)


def test_the_host_frees_a_page_that_somebody_holds() -> None:
    machine = wild("pv_entry")
    kernel = machine.kernel

    def hold(pfn: int, old: int, new: int) -> None:
        kernel.pages[pfn].hold_count.state = int(QUEUES[new] == "free")

    machine.oracle.tell("page.queue", hold)

    assert "held: 1, counted 0" in str(outcome(machine).error)


def test_a_table_is_linked_with_something_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = wild("pv_entry")
    monkeypatch.setattr(machine.books, "image", lambda guest: lambda frame: (0, 7))

    assert "which is a table now: 1, counted 0" in str(outcome(machine).error)
