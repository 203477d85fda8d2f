"""Invariant 4 does not depend on the order of two steps that the kernel may take in either.

A store through a PTE that the kernel does not find, and the clearing of PG_WRITEABLE, touch nothing
in common: a search that reduces such pairs takes one order only, so both must be a violation.
"""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation

from tests.oracle.feed import GUEST, RW, Feed
from vkhost.vm.vm_page import PG_WRITEABLE


def mapped() -> Feed:
    feed = Feed("dirty").guest()
    feed.say("set-up", "page.dirty", 8, 0)
    feed.enter("fault0", 0, 8, RW)
    return feed


def store(feed: Feed) -> None:
    feed.say("vcpu0", "mem.store", 0, GUEST, 0, 8, 0, 77)


def write_protect_blindly(feed: Feed) -> None:
    feed.say("syncer", "page.flags", 8, 0, PG_WRITEABLE)


def test_a_store_after_the_flag_has_gone_leaves_no_trace() -> None:
    feed = mapped()
    write_protect_blindly(feed)

    with pytest.raises(Violation, match="leaves no trace"):
        store(feed)


def test_a_flag_that_goes_after_the_store_takes_the_trace_away() -> None:
    feed = mapped()
    store(feed)

    with pytest.raises(Violation, match="nobody will look for the changes of frame 8") as caught:
        write_protect_blindly(feed)

    assert caught.value.invariant == 4


def test_the_flag_may_go_once_the_page_is_dirty() -> None:
    feed = mapped()
    store(feed)
    feed.say("syncer", "page.dirty", 8, 255)
    write_protect_blindly(feed)


def written_out() -> Feed:
    feed = mapped()
    feed.say("fault0", "page.dirty", 8, 255)
    feed.say("syncer", "page.flags", 8, 0, PG_WRITEABLE)
    feed.say("syncer", "pager.put", "image", 8, 8)
    return feed


def test_a_store_to_what_was_written_out_and_called_clean_leaves_no_trace() -> None:
    feed = written_out()
    feed.say("syncer", "page.dirty", 8, 0)

    with pytest.raises(Violation, match="leaves no trace"):
        store(feed)


def test_what_is_called_clean_after_such_a_store_is_not() -> None:
    feed = written_out()
    store(feed)

    with pytest.raises(Violation, match="written out, and changed, and is clean") as caught:
        feed.say("syncer", "page.dirty", 8, 0)

    assert caught.value.invariant == 4


def test_what_is_freed_may_be_called_clean() -> None:
    feed = mapped()
    store(feed)
    feed.say("exit", "page.dirty", 8, 0)
