"""Invariant 5 (VPTE_M) and 10 (references of a vmspace_entry)."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation
from vkprotocol.vpte import VPTE_M

from tests.oracle.feed import GUEST, LEAF, RW, Feed

MODIFIED = 8 << 12 | LEAF | VPTE_M
CLEAN = 8 << 12 | LEAF


def writing() -> Feed:
    """va 0 is mapped writable, with M in the VPTE, and has been written."""
    feed = Feed("guest-dirty").guest()
    feed.edit(0, MODIFIED)
    feed.enter("fault0", 0, 8, RW)
    feed.store("user", 0, 8, 1)
    return feed


def test_between_edit_and_inval_the_old_m_counts() -> None:
    feed = writing()
    feed.edit(0, CLEAN)
    feed.store("user", 0, 8, 2)
    feed.say("kern", "inval.begin", GUEST, 0, 4096)
    feed.remove("kern", 0, 8, RW)
    feed.say("kern", "inval.end", GUEST, 0, 4096)
    feed.say("kern", "guest.clean", 7, 0x10, 0)
    feed.oracle.finish()


def test_m_cleared_without_inval() -> None:
    """W13."""
    feed = writing()
    feed.edit(0, CLEAN)
    feed.store("user", 0, 8, 2)

    with pytest.raises(Violation, match="and no INVAL followed") as caught:
        feed.oracle.finish()

    assert caught.value.invariant == 5


def test_a_store_after_the_guest_took_it_for_clean() -> None:
    feed = writing()
    feed.edit(0, CLEAN)
    feed.say("kern", "guest.clean", 7, 0x10, 0)

    with pytest.raises(Violation, match="after the guest took it for clean"):
        feed.store("user", 0, 8, 2)


def test_a_store_the_guest_overlooked() -> None:
    feed = writing()
    feed.edit(0, CLEAN)
    feed.store("user", 0, 8, 2)

    with pytest.raises(Violation, match="and the guest takes it for clean"):
        feed.say("kern", "guest.clean", 7, 0x10, 0)


def test_modified_again_by_a_fault() -> None:
    feed = writing()
    feed.edit(0, CLEAN)
    feed.say("kern", "inval.begin", GUEST, 0, 4096)
    feed.remove("kern", 0, 8, RW)
    feed.say("kern", "inval.end", GUEST, 0, 4096)
    feed.say("kern", "guest.clean", 7, 0x10, 0)
    feed.say("fault0", "vpte.am", 3, 0, CLEAN, MODIFIED)
    feed.enter("fault0", 0, 8, RW)
    feed.store("user", 0, 8, 3)
    feed.edit(0, CLEAN)
    feed.store("user", 0, 8, 4)
    feed.inval("kern", 0, 4096)
    feed.oracle.finish()


@pytest.mark.parametrize("seen", ["set by the host", "set by the guest"])
def test_modified_and_cleared_again_before_the_store(seen: str) -> None:
    """The last `guest.clean` says nothing about the next time: this INVAL is still to come."""
    feed = writing()
    feed.edit(0, CLEAN)
    feed.say("kern", "inval.begin", GUEST, 0, 4096)
    feed.remove("kern", 0, 8, RW)
    feed.say("kern", "inval.end", GUEST, 0, 4096)
    feed.say("kern", "guest.clean", 7, 0x10, 0)
    if seen == "set by the host":
        feed.say("fault0", "vpte.read", 3, 0, CLEAN, 0)
        feed.say("fault0", "vpte.am", 3, 0, CLEAN, MODIFIED)
    else:
        feed.edit(0, MODIFIED)
        feed.say("fault0", "vpte.read", 3, 0, MODIFIED, 0)
    feed.edit(0, CLEAN)
    feed.enter("fault0", 0, 8, RW)
    feed.store("user", 0, 8, 3)
    feed.inval("kern", 0, 4096)
    feed.oracle.finish()


def test_a_read_of_the_vpte_does_not_end_the_reliance() -> None:
    feed = writing()
    feed.edit(0, CLEAN)
    feed.say("kern", "guest.clean", 7, 0x10, 0)
    feed.say("fault0", "vpte.read", 3, 0, CLEAN, 0)

    with pytest.raises(Violation, match="after the guest took it for clean"):
        feed.store("user", 0, 8, 2)


def test_an_address_that_is_no_longer_valid() -> None:
    feed = writing()
    feed.edit(0, 0)
    feed.store("user", 0, 8, 2)
    feed.oracle.finish()


def refs() -> Feed:
    feed = Feed("refs")
    feed.say("lwp0", "lwp.create", 7, "7.0")
    feed.say("lwp1", "lwp.create", 7, "7.1")
    feed.say("lwp0", "vmspace.create", 7, 1, GUEST)
    return feed


def run(feed: Feed, lwp: str) -> None:
    """What is left of a RUN call once the guest runs: one reference."""
    feed.say(lwp, "syscall.begin", lwp, "vmspace_ctl")
    feed.say(lwp, "vmspace.ref", 7, 1, 1)
    feed.say(lwp, "vmspace.ref", 7, 1, 2)
    feed.say(lwp, "run.enter", lwp, 1)
    feed.say(lwp, "vmspace.ref", 7, 1, 1)


def leave(feed: Feed, lwp: str, refs: int) -> None:
    feed.say(lwp, "run.exit", lwp, 1, 12, 0)
    feed.say(lwp, "vmspace.ref", 7, 1, refs)
    feed.say(lwp, "syscall.end", lwp, "vmspace_ctl", 0, 0)


def test_a_run_is_one_reference() -> None:
    feed = refs()
    run(feed, "7.0")
    leave(feed, "7.0", 0)
    feed.oracle.finish()


def test_a_reference_too_many() -> None:
    feed = refs()
    run(feed, "7.0")

    with pytest.raises(Violation, match="has 1 references and 0 runners, no calls") as caught:
        leave(feed, "7.0", 1)

    assert caught.value.invariant == 10


def test_ebusy_leaks_a_reference() -> None:
    """W22: seen as soon as the call is over, the runner still running."""
    feed = refs()
    run(feed, "7.0")
    feed.say("7.1", "syscall.begin", "7.1", "vmspace_destroy")
    feed.say("7.1", "vmspace.ref", 7, 1, 2)
    feed.say("7.1", "vmspace.destroy", 7, 1, 16)

    with pytest.raises(Violation, match="has 2 references and 1 runners"):
        feed.say("7.1", "syscall.end", "7.1", "vmspace_destroy", 16, 0)


def test_a_call_in_flight_is_a_reference() -> None:
    feed = refs()
    feed.say("7.1", "syscall.begin", "7.1", "vmspace_mcontrol")
    feed.say("7.1", "vmspace.ref", 7, 1, 1)
    run(feed, "7.0")
    feed.say("7.0", "vmspace.ref", 7, 1, 2)
    leave(feed, "7.0", 1)
    feed.say("7.1", "vmspace.ref", 7, 1, 0)
    feed.say("7.1", "syscall.end", "7.1", "vmspace_mcontrol", 0, 0)
    feed.oracle.finish()


def test_destroyed_under_a_runner() -> None:
    feed = refs()
    run(feed, "7.0")

    with pytest.raises(Violation, match="is destroyed while it runs"):
        feed.say("7.1", "vmspace.destroy", 7, 1, 0)


def test_fewer_than_none() -> None:
    feed = refs()

    with pytest.raises(Violation, match="fewer than no references"):
        feed.say("7.1", "vmspace.ref", 7, 1, -1)
