"""Invariants 3 and 4: PG_MAPPED, and changes that nobody would learn of."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation

from tests.oracle.feed import DMAP, GUEST, OWN, RO, RW, Feed
from vkhost.vm.vm_page import PG_MAPPED, PG_WRITEABLE

INACTIVE, NONE, CACHE = 2, 0, 4
DIRTY = "dirty"


def test_the_flag_comes_before_the_pte() -> None:
    feed = Feed("mapped-flag").guest()

    with pytest.raises(Violation, match="frame 8 is mapped while PG_MAPPED is clear") as caught:
        feed.pte("fault0", 0, 8, RO)

    assert caught.value.invariant == 3


def test_the_flag_goes_after_the_last_pte() -> None:
    feed = Feed("mapped-flag").guest()
    feed.enter("fault0", 0, 8)
    feed.enter("fault1", 0x2000, 8, cpu=2)
    feed.remove("kern", 0, 8, RO)

    with pytest.raises(Violation, match="loses PG_MAPPED while it is mapped, at 0x2000"):
        feed.say("kern", "page.flags", 8, 0, PG_MAPPED)


def test_mapped_without_a_pte_is_allowed() -> None:
    feed = Feed().guest()
    feed.enter("fault0", 0, 8)
    feed.remove("kern", 0, 8, RO)
    feed.say("kern", "page.flags", 8, 0, PG_WRITEABLE)
    feed.say("kern", "page.flags", 8, 0, PG_MAPPED)


def writable(*checks: str) -> Feed:
    """Frame 9 is mapped writable at 0x1000, M set, and has just been written out."""
    feed = Feed(*checks).guest()
    feed.enter("fault0", 0x1000, 9, RW)
    feed.store("user", 0x1000, 9, 1)
    return feed


def clean(feed: Feed) -> None:
    feed.say("pagedaemon", "pager.put", "image", 9, 9)
    feed.say("pagedaemon", "page.dirty", 9, 0)


def drop(feed: Feed) -> None:
    feed.say("pagedaemon", "page.queue", 9, INACTIVE, NONE)
    feed.say("pagedaemon", "page.queue", 9, NONE, CACHE)


def test_a_store_that_testbit_would_not_report() -> None:
    """W12: write-protected by flag, not by PTE."""
    feed = writable(DIRTY)
    feed.say("pagedaemon", "page.flags", 9, 0, PG_WRITEABLE)
    clean(feed)

    with pytest.raises(Violation, match="a store to clean frame 9 leaves no trace") as caught:
        feed.store("user", 0x1000, 9, 2)

    assert caught.value.invariant == 4
    assert [access.name for access in caught.value.accesses if access] == [
        "page.dirty",
        "mem.store",
    ]


def test_a_store_that_testbit_would_report() -> None:
    feed = writable(DIRTY)
    clean(feed)
    feed.store("user", 0x1000, 9, 2)


def test_a_store_of_what_is_there_changes_nothing() -> None:
    feed = writable(DIRTY)
    feed.say("pagedaemon", "page.flags", 9, 0, PG_WRITEABLE)
    clean(feed)
    feed.store("user", 0x1000, 9, 1)


def test_an_m_bit_in_hand_is_known() -> None:
    """W33 as it should be: swapped out, then delivered; the store was before the flush."""
    feed = writable(DIRTY)
    clean(feed)
    feed.store("user", 0x1000, 9, 2)
    feed.remove("fault1", 0x1000, 9, RW, cpu=None)
    feed.store("user", 0x1008, 9, 3)
    feed.say("fault1", "tlb.flush", 0, 0x1000)
    feed.say("fault1", "page.dirty", 9, 255)
    feed.say("fault1", "page.flags", 9, 0, PG_MAPPED | PG_WRITEABLE)


def test_an_m_bit_delivered_too_late() -> None:
    """W33: nobody waited for the M in hand."""
    feed = writable(DIRTY)
    clean(feed)
    feed.store("user", 0x1000, 9, 2)
    feed.remove("fault1", 0x1000, 9, RW)

    with pytest.raises(Violation, match="frame 9 is cached as clean, with changes"):
        drop(feed)


def test_dirty_pages_are_not_cached() -> None:
    feed = writable(DIRTY)

    with pytest.raises(Violation, match="frame 9 is cached though dirty"):
        drop(feed)


def test_a_change_after_the_snapshot_is_not_in_it() -> None:
    feed = writable(DIRTY)
    feed.say("pagedaemon", "pager.put", "image", 9, 9)
    feed.store("user", 0x1000, 9, 2)
    feed.remove("kern", 0x1000, 9, RW)

    with pytest.raises(Violation, match="written out, and changed, and is clean"):
        feed.say("pagedaemon", "page.dirty", 9, 0)


def test_a_change_that_nobody_wrote_out_is_not_cached_as_clean() -> None:
    feed = writable(DIRTY)
    feed.store("user", 0x1000, 9, 2)
    feed.remove("kern", 0x1000, 9, RW)
    feed.say("pagedaemon", "page.dirty", 9, 0)

    with pytest.raises(Violation, match="as clean, with changes"):
        drop(feed)


def test_clean_pages_are_cached() -> None:
    feed = writable(DIRTY)
    feed.remove("pagedaemon", 0x1000, 9, RW)
    clean(feed)
    drop(feed)


def test_freed_as_clean() -> None:
    feed = writable(DIRTY)
    feed.say("kern", "page.dirty", 9, 0)
    feed.say("pagedaemon", "page.queue", 9, INACTIVE, NONE)

    with pytest.raises(Violation, match="frame 9 is freed as clean"):
        feed.free("pagedaemon", 9)


@pytest.mark.parametrize("how", ["undirtied on the way", "discarded"])
def test_a_dirty_page_may_be_thrown_away(how: str) -> None:
    feed = writable(DIRTY)
    if how == "discarded":
        feed.say("kern", "page.discard", 9)
    feed.say("kern", "page.queue", 9, INACTIVE, NONE)
    feed.say("kern", "page.dirty", 9, 0)
    feed.free("kern", 9)


def test_a_zero_filled_page_is_clean() -> None:
    feed = Feed(DIRTY).guest()
    feed.alloc("fault0", 12, 12)
    feed.say("fault0", "page.zero", 12)
    feed.say("pagedaemon", "page.queue", 12, INACTIVE, NONE)
    feed.say("pagedaemon", "page.queue", 12, NONE, CACHE)


def test_a_page_zeroed_again_is_changed() -> None:
    feed = writable(DIRTY)
    clean(feed)
    feed.say("user", "page.zero", 9)
    feed.remove("kern", 0x1000, 9, RW)

    with pytest.raises(Violation, match="as clean, with changes"):
        drop(feed)


def test_a_load_gives_what_was_stored() -> None:
    feed = writable("content")
    feed.load("user", 0x1000, 9, 1)

    with pytest.raises(AssertionError, match="the events so far say 1"):
        feed.load("user", 0x1000, 9, 2)


def test_content_survives_the_backing_store() -> None:
    feed = writable("content")
    clean(feed)
    feed.free("pagedaemon", 9)
    feed.alloc("fault0", 10, 9)
    feed.say("fault0", "pager.get", "image", 9, 10)
    feed.load("user", 0x1000, 10, 1)


def test_what_a_file_held_before() -> None:
    feed = Feed("content").guest()
    feed.say("fault0", "pager.content", "image", 12, (5).to_bytes(8, "little") + bytes(4088))
    feed.alloc("fault0", 12, 12)
    feed.say("fault0", "pager.get", "image", 12, 12)
    feed.enter("fault0", DMAP + (12 << 12), 12, pmap=OWN, cpu=1)

    with pytest.raises(AssertionError, match="say 5"):
        feed.say("kern", "mem.load", 1, OWN, DMAP + (12 << 12), 12, 0, 6)


def test_a_copy_is_a_copy() -> None:
    feed = Feed("content").guest()
    feed.alloc("fault0", 12, 5, "shadow")
    feed.say("fault0", "page.copy", 3, 12)
    feed.enter("fault0", 0x3000, 12)

    with pytest.raises(AssertionError, match="say"):
        feed.load("user", 0x3000, 12, 0)

    assert GUEST != OWN
