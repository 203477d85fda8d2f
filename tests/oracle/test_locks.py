"""Invariants 7 and 8: interlocks, and what may be held together."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation

from tests.oracle.feed import GUEST, OWN, Feed


def test_ranges_that_touch_do_not_overlap() -> None:
    feed = Feed("interlock")
    feed.say("fault0", "ilock.enter", GUEST, 0, 4096)
    feed.say("kern", "ilock.enter", GUEST, 4096, 8192)
    feed.say("fault1", "ilock.enter", OWN, 0, 4096)
    feed.say("fault0", "ilock.exit", GUEST, 0, 4096)
    feed.say("kern", "ilock.exit", GUEST, 4096, 8192)
    feed.say("fault1", "ilock.exit", OWN, 0, 4096)
    feed.oracle.finish()


def test_ranges_that_overlap() -> None:
    feed = Feed("interlock")
    feed.say("kern", "ilock.enter", GUEST, 0, 8192)

    with pytest.raises(Violation, match="fault0 interlocks 0x1000-0x2000") as caught:
        feed.say("fault0", "ilock.enter", GUEST, 4096, 8192)

    assert caught.value.invariant == 7
    assert [access.actor for access in caught.value.accesses if access] == ["kern", "fault0"]


def test_a_sleeper_that_is_never_woken() -> None:
    feed = Feed("interlock")
    feed.say("kern", "ilock.wait", GUEST, 0, 8192)

    with pytest.raises(Violation, match="kern was never woken"):
        feed.oracle.finish()


def test_a_sleeper_that_is_woken() -> None:
    feed = Feed("interlock")
    feed.say("kern", "ilock.wait", GUEST, 0, 8192)
    feed.say("kern", "ilock.enter", GUEST, 0, 8192)
    feed.say("kern", "ilock.exit", GUEST, 0, 8192)
    feed.oracle.finish()


def test_an_interlock_left_over() -> None:
    feed = Feed("interlock")
    feed.say("kern", "ilock.enter", GUEST, 0, 8192)

    with pytest.raises(Violation, match="kern has kept its interlock"):
        feed.oracle.finish()


def test_an_interlock_somebody_else_holds() -> None:
    feed = Feed("interlock")
    feed.say("kern", "ilock.enter", GUEST, 0, 8192)

    with pytest.raises(Violation, match="does not hold"):
        feed.say("fault0", "ilock.exit", GUEST, 0, 8192)


def test_the_map_lock_under_an_interlock() -> None:
    """W43."""
    feed = Feed("lock-hygiene")
    feed.say("fault0", "map.lock.wait", GUEST, False)
    feed.say("fault0", "map.lock", GUEST, False)
    feed.say("fault0", "ilock.enter", GUEST, 0, 4096)
    feed.say("fault0", "map.unlock", GUEST)

    with pytest.raises(Violation, match="while holding an interlock of it") as caught:
        feed.say("fault0", "map.lock.wait", GUEST, False)

    assert caught.value.invariant == 8


def test_the_map_lock_of_another_map_is_no_matter() -> None:
    feed = Feed("lock-hygiene")
    feed.say("fault0", "ilock.enter", GUEST, 0, 4096)
    feed.say("fault0", "map.lock.wait", OWN, False)


@pytest.mark.parametrize("actor", ["pagedaemon", "emergpager"])
def test_the_pageout_daemon_and_map_locks(actor: str) -> None:
    feed = Feed("lock-hygiene")

    with pytest.raises(Violation, match=f"{actor} asks for a map lock"):
        feed.say(actor, "map.lock.wait", GUEST, True)


def test_two_pages_of_one_object() -> None:
    feed = Feed("lock-hygiene").guest()
    feed.fault("fault0", 0)
    feed.say("fault0", "page.busy", 2, "hard")

    with pytest.raises(Violation, match="busies frame 3 while it has 2 busied"):
        feed.say("fault0", "page.busy", 3, "hard")


def test_one_page_after_the_other() -> None:
    feed = Feed("lock-hygiene").guest()
    feed.fault("fault0", 0)
    for pfn in range(4):
        feed.say("fault0", "page.busy", pfn, "hard")
        feed.say("fault0", "page.unbusy", pfn, "hard")
    feed.resolved("fault0", 0)


def test_source_and_target_of_a_copy() -> None:
    feed = Feed("lock-hygiene").guest()
    feed.fault("fault0", 0, "write")
    feed.alloc("fault0", 12, 0, "shadow")
    feed.say("fault0", "page.busy", 8, "hard")

    with pytest.raises(Violation, match="busies frame 9"):
        feed.say("fault0", "page.busy", 9, "hard")


def test_the_pageout_daemon_busies_clusters() -> None:
    feed = Feed("lock-hygiene").guest()
    for pfn in range(4):
        feed.say("pagedaemon", "page.busy", pfn, "hard")


def test_a_cached_page_is_busied_to_be_freed() -> None:
    feed = Feed("lock-hygiene").guest()
    feed.fault("fault0", 0)
    feed.say("pagedaemon", "page.queue", 9, 2, 4)
    feed.say("fault0", "page.busy", 8, "hard")
    feed.say("fault0", "page.busy", 9, "hard")
