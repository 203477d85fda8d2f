"""Invariants 1 and 6: edit and INVAL, in every order that matters."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation
from vkprotocol.vpte import VPTE_M, VPTE_NX, VPTE_RW, VPTE_V

from tests.oracle.feed import DMAP, GUEST, LEAF, NO_EXECUTE, OWN, RO, RW, TABLE, Feed

STALE = "stale-translation"
RIGHTS = "read-only"


def mapped(*checks: str, bits: int = RO) -> Feed:
    feed = Feed(*checks).guest()
    feed.fault("fault0", 0)
    feed.enter("fault0", 0, 8, bits)
    feed.resolved("fault0", 0)
    return feed


def test_between_edit_and_inval_anything_older_may_be_used() -> None:
    feed = mapped()
    feed.edit(0, 0)
    feed.load("user", 0, 8)
    feed.say("kern", "inval.begin", GUEST, 0, 4096)
    feed.load("user", 0, 8)
    feed.remove("kern", 0, 8, RO)
    feed.say("kern", "inval.end", GUEST, 0, 4096)
    feed.oracle.finish()


def test_an_inval_that_removes_nothing() -> None:
    feed = mapped(STALE)
    feed.edit(0, 0)

    with pytest.raises(Violation, match="0x0 of vmspace 0x10 of process 7 still maps image\\[8\\]"):
        feed.inval("kern", 0, 4096)


def test_an_inval_that_leaves_a_tlb_entry() -> None:
    feed = mapped(STALE)
    feed.edit(0, 0)
    feed.say("kern", "inval.begin", GUEST, 0, 4096)
    feed.remove("kern", 0, 8, RO, cpu=None)

    with pytest.raises(Violation, match="page table says nothing"):
        feed.say("kern", "inval.end", GUEST, 0, 4096)


def test_an_inval_that_misses_the_page_shows_at_the_end() -> None:
    """W17: the range is too small."""
    feed = mapped(STALE)
    feed.edit(0, 0)
    feed.inval("kern", 4096, 8192)

    with pytest.raises(Violation, match="no INVAL followed the edit"):
        feed.oracle.finish()


def test_late_enter() -> None:
    """W01: the walk read before the edit, the PTE comes after the INVAL."""
    feed = Feed(STALE).guest()
    feed.say("fault0", "fault.begin", GUEST, 0, "read")
    feed.say("fault0", "vpte.read", 3, 0, 8 << 12 | LEAF, 0)
    feed.edit(0, 0)
    feed.inval("kern", 0, 4096)

    with pytest.raises(Violation, match="returned before") as caught:
        feed.enter("fault0", 0, 8)

    assert caught.value.invariant == 1


def test_an_enter_before_the_inval_has_returned() -> None:
    """The interlock's promise: the INVAL removes what was entered before its pmap_remove."""
    feed = Feed().guest()
    feed.fault("fault0", 0)
    feed.edit(0, 0)
    feed.say("kern", "inval.begin", GUEST, 0, 4096)
    feed.enter("fault0", 0, 8)
    feed.resolved("fault0", 0)
    feed.remove("kern", 0, 8, RO)
    feed.say("kern", "inval.end", GUEST, 0, 4096)
    feed.oracle.finish()


def test_an_inval_from_before_the_edit_proves_nothing() -> None:
    """W02 is the guest's defect: it is seen when the guest relies on it, not before."""
    feed = Feed(STALE).guest()
    feed.fault("fault0", 0)
    feed.inval("kern", 0, 4096)
    feed.edit(0, 0)
    feed.enter("fault0", 0, 8)
    feed.resolved("fault0", 0)

    with pytest.raises(Violation, match="the guest has freed the frame"):
        feed.say("kern", "guest.free", 7, 8)


@pytest.mark.parametrize("again", [False, True])
def test_a_walk_writes_into_a_table_that_was_freed(again: bool) -> None:
    """W16, whether or not the page has a new use already."""
    feed = Feed(STALE).guest()
    feed.fault("fault0", 0)
    feed.edit(0, 0, pindex=2)
    feed.say("kern", "guest.free", 7, 3)
    if again:
        feed.say("kern", "guest.alloc", 7, 3, "data")

    with pytest.raises(Violation, match="a table that the guest has freed meanwhile"):
        feed.say("fault0", "vpte.am", 3, 0, 8 << 12 | VPTE_V, 8 << 12 | LEAF)


def test_a_table_freed_before_the_walk_began() -> None:
    feed = Feed(STALE).guest()
    feed.say("kern", "guest.free", 7, 3)
    feed.say("kern", "guest.alloc", 7, 3, "table")
    feed.fault("fault0", 0)
    feed.say("fault0", "vpte.am", 3, 0, 8 << 12 | VPTE_V, 8 << 12 | LEAF)


def test_a_change_back_is_no_change() -> None:
    """W34: translated by a value that was away for a while."""
    feed = Feed().guest()
    feed.fault("fault0", 0)
    feed.edit(0, 0)
    feed.inval("kern", 0, 4096)
    feed.edit(0, 8 << 12 | LEAF)
    feed.enter("fault0", 0, 8)
    feed.resolved("fault0", 0)
    feed.oracle.finish()


def test_a_whole_directory_goes() -> None:
    feed = mapped(STALE)
    feed.edit(0, 0, pindex=2)

    with pytest.raises(Violation, match="page table says nothing"):
        feed.inval("kern", 0, 1 << 21)


def test_setmap_is_edit_and_inval() -> None:
    """W19: a fault that read the old root enters after SETMAP has returned."""
    feed = Feed(STALE).guest()
    feed.fault("fault0", 0)
    feed.say("kern", "setmap.begin", GUEST, 0, 1 << 21, 5 << 12 | TABLE)
    feed.say("kern", "setmap.end", GUEST, 0, 1 << 21, 5 << 12 | TABLE)

    with pytest.raises(Violation, match="returned before"):
        feed.enter("fault0", 0, 8)


def test_setmap_that_leaves_a_pte() -> None:
    feed = mapped(STALE)
    feed.say("kern", "setmap.begin", GUEST, 0, 1 << 21, 0)

    with pytest.raises(Violation, match="page table says nothing"):
        feed.say("kern", "setmap.end", GUEST, 0, 1 << 21, 0)


def test_munmap_leaves_nothing() -> None:
    feed = mapped(STALE)

    with pytest.raises(Violation, match=r"map\.remove of event"):
        feed.say("kern", "map.remove", GUEST, 0, 1 << 21)


def test_a_cpu_out_of_pm_active_flushes_before_it_comes_back() -> None:
    feed = mapped(STALE)
    feed.load("user", 0, 8)
    feed.say("user", "cpu.active", GUEST, 0)
    feed.edit(0, 0)
    feed.say("kern", "inval.begin", GUEST, 0, 4096)
    feed.remove("kern", 0, 8, RO, cpu=None)
    feed.say("kern", "inval.end", GUEST, 0, 4096)
    feed.say("user", "cpu.active", GUEST, 1)

    with pytest.raises(Violation, match="passed cpu 0 by"):
        feed.load("user", 0, 8)


def test_a_paged_out_table_is_still_a_table() -> None:
    feed = mapped(STALE)
    feed.say("pagedaemon", "pager.put", "image", 3, 3)
    feed.say("pagedaemon", "pte.write", OWN, 0x10000003000, 3 << 12 | RW, 0, "remove_all")
    feed.free("pagedaemon", 3)
    feed.oracle.finish()
    feed.alloc("fault1", 9, 3)
    feed.say("fault1", "pager.get", "image", 3, 9)
    feed.oracle.finish()


@pytest.mark.parametrize("bits", [0, VPTE_RW, VPTE_M])
def test_writable_needs_rw_and_m(bits: int) -> None:
    feed = Feed(RIGHTS).guest()
    feed.edit(0, 8 << 12 | VPTE_V | bits)
    feed.fault("fault0", 0)
    feed.enter("fault0", 0, 8, RO | NO_EXECUTE)
    feed.say("kern", "inval.begin", GUEST, 0, 4096)
    feed.say("fault0", "pte.write", GUEST, 0, 0x8000 | RO, 0x8000 | RW, "enter")

    with pytest.raises(Violation) as caught:
        feed.say("kern", "inval.end", GUEST, 0, 4096)

    assert caught.value.invariant == 6


def test_writable_by_rw_and_m() -> None:
    feed = Feed().guest()
    feed.edit(0, 8 << 12 | LEAF | VPTE_M)
    feed.fault("fault0", 0)
    feed.enter("fault0", 0, 8, RW)
    feed.resolved("fault0", 0)
    feed.inval("other", 0, 4096)
    feed.oracle.finish()


def test_a_read_only_directory_counts() -> None:
    """W28: the real kernel looks at the last VPTE alone."""
    feed = Feed(RIGHTS).guest()
    feed.edit(0, 8 << 12 | LEAF | VPTE_M)
    feed.edit(0, 3 << 12 | VPTE_V, pindex=2)
    feed.fault("fault0", 0)
    feed.enter("fault0", 0, 8, RW)
    feed.resolved("fault0", 0)

    with pytest.raises(Violation, match="not writable"):
        feed.oracle.finish()


def test_no_execute_is_carried_over() -> None:
    feed = Feed(RIGHTS).guest()
    feed.edit(0, 8 << 12 | LEAF | VPTE_NX)
    feed.fault("fault0", 0)
    feed.enter("fault0", 0, 8, RO)
    feed.resolved("fault0", 0)

    with pytest.raises(Violation):
        feed.oracle.finish()


def test_no_execute_carried_over_is_fine() -> None:
    feed = Feed().guest()
    feed.edit(0, 8 << 12 | LEAF | VPTE_NX)
    feed.fault("fault0", 0)
    feed.enter("fault0", 0, 8, RO | NO_EXECUTE)
    feed.resolved("fault0", 0)
    feed.oracle.finish()


def emulated(feed: Feed, va: int = 0, pfn: int = 8, pmap: int = GUEST) -> None:
    feed.say("fault0", "mem.emulate", 0, pmap, va, pfn, va >> 3 & 511, 5)


def test_an_emulated_store_goes_where_the_page_table_leads() -> None:
    feed = Feed().guest()
    feed.edit(0, 8 << 12 | LEAF | VPTE_M)
    feed.fault("fault0", 0, "write")
    emulated(feed)
    emulated(feed, DMAP + (3 << 12), 3, OWN)


@pytest.mark.parametrize(
    ("vpte", "check"),
    [(0, STALE), (9 << 12 | LEAF | VPTE_M, STALE), (8 << 12 | LEAF, RIGHTS),
     (8 << 12 | VPTE_V | VPTE_M, RIGHTS)],
)  # fmt: skip
def test_an_emulated_store_after_an_edit(vpte: int, check: str) -> None:
    """The fault began before it, and no INVAL has come: the other stores are allowed that."""
    feed = Feed(check).guest()
    feed.edit(0, 8 << 12 | LEAF | VPTE_M)
    feed.fault("fault0", 0, "write")
    feed.edit(0, vpte)

    with pytest.raises(Violation, match=r"a store is emulated .* goes to image") as caught:
        emulated(feed)
    assert caught.value.check == check


def test_an_emulated_store_to_the_vpte_it_goes_by() -> None:
    feed = Feed(STALE).guest()
    feed.edit(0, 3 << 12 | LEAF | VPTE_M)
    feed.fault("fault0", 0, "write")
    emulated(feed, 0, 3)

    with pytest.raises(Violation, match="a store is emulated"):
        emulated(feed, 0, 3)


@pytest.mark.parametrize("va", [0, DMAP + (2 << 12)])
def test_an_emulated_store_to_what_an_ordinary_mapping_does_not_show(va: int) -> None:
    feed = Feed(STALE).guest()

    with pytest.raises(Violation, match="a store is emulated"):
        emulated(feed, va, 3, OWN)
