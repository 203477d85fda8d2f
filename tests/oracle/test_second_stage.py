"""Nested paging: what is combined in a TLB only, by events fed by hand."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation

from tests.oracle.feed import GUEST, IMAGE, RO, RW, Feed

STAGE = "ept"


def walked(bits: int = RO, second: int | None = RO, *checks: str) -> Feed:
    """CPU 0 runs the guest, has walked for va 0, and caches frame 8 with `bits`; the second stage
    has `second` for it, or nothing."""
    feed = Feed(*checks).guest()
    feed.say("set-up", "map.insert", STAGE, 0, 1 << 40, "normal", IMAGE, 0)
    if second is not None:
        feed.say("set-up", "page.flags", 8, 0x30, 0)
        feed.say("set-up", "pte.write", STAGE, 8 << 12, 0, 8 << 12 | second, "enter")
    walk(feed, bits)
    return feed


def walk(feed: Feed, bits: int) -> None:
    feed.say("user", "walk.begin", 0, GUEST, 0)
    feed.say("user", "tlb.fill", 0, GUEST, 0, 8, bits)
    feed.say("user", "walk.end", 0, GUEST, 0, "filled", STAGE, 8 << 12)


def unmapped(feed: Feed) -> None:
    feed.say("pagedaemon", "pte.write", STAGE, 8 << 12, 8 << 12 | RO, 0, "remove_all")
    feed.say("pagedaemon", "page.flags", 8, 0, 0x30)


def test_a_walk_that_agrees_with_both_stages() -> None:
    feed = walked()
    unmapped(feed)
    feed.say("user", "tlb.flush", 0, -1)
    feed.free("pagedaemon", 8)
    feed.oracle.finish()


def test_a_frame_is_freed_while_a_tlb_has_it() -> None:
    feed = walked()
    unmapped(feed)

    with pytest.raises(Violation, match="frame 8 is freed, and cpu 0 still has it") as caught:
        feed.free("pagedaemon", 8)
    assert caught.value.check == "free-frame"


def test_a_frame_is_cached_while_a_tlb_has_it() -> None:
    feed = walked()
    unmapped(feed)

    with pytest.raises(Violation, match="frame 8 is cached, and cpu 0"):
        feed.say("pagedaemon", "page.queue", 8, 2, 4)


def test_a_cpu_that_is_not_in_use_has_to_flush_before_it_is() -> None:
    feed = walked()
    unmapped(feed)
    feed.say("user", "cpu.active", GUEST, 0b100)
    feed.free("pagedaemon", 8)


def test_a_walk_that_no_second_stage_knows_of() -> None:
    with pytest.raises(Violation, match="caches what no second-stage PTE maps: 0x0"):
        walked(second=None)


def test_a_walk_that_takes_more_than_the_second_stage_gives() -> None:
    with pytest.raises(Violation, match="more than the second stage permits") as caught:
        walked(RW, RO)
    assert caught.value.invariant == 6


def test_a_walk_that_is_overtaken_by_an_inval() -> None:
    feed = walked()
    feed.say("user", "tlb.flush", 0, 0)
    feed.say("user", "walk.begin", 0, GUEST, 0)
    feed.edit(0, 0)
    feed.inval("kern", 0, 4096)
    feed.say("user", "tlb.fill", 0, GUEST, 0, 8, RO)

    with pytest.raises(Violation, match="returned before") as caught:
        feed.say("user", "walk.end", 0, GUEST, 0, "filled", STAGE, 8 << 12)
    assert caught.value.invariant == 1


def test_a_translation_that_is_in_a_tlb_only_is_looked_at_in_the_end() -> None:
    feed = walked()
    feed.edit(0, 0)

    with pytest.raises(Violation, match="no INVAL followed the edit"):
        feed.oracle.finish()


@pytest.mark.parametrize("checks", [("freed-access",), ("freed-access", "read-only")])
def test_a_walk_through_a_second_stage_pte_of_an_earlier_owner(checks: tuple[str, ...]) -> None:
    """What a translation is worth does not depend on which other checks are on."""
    feed = Feed(*checks).guest()
    feed.say("set-up", "pte.write", STAGE, 8 << 12, 0, 8 << 12 | RO, "enter")
    feed.free("pagedaemon", 8)
    feed.alloc("other", 8, 0, "other")
    walk(feed, RO)

    with pytest.raises(Violation, match="now belongs to other") as caught:
        feed.load("user", 0, 8)
    assert caught.value.check == "freed-access"
