"""Invariant 2: frames and their owners. Each violation next to the legal run it is taken from."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation

from tests.oracle.feed import GUEST, RO, RW, Feed


def reused(*checks: str) -> Feed:
    """va 0 is mapped to frame 8 and cached by CPU 0; then the frame is somebody else's."""
    feed = Feed(*checks).guest()
    feed.enter("fault0", 0, 8, RO)
    feed.load("user", 0, 8)
    return feed


def test_a_frame_is_freed_under_a_pte() -> None:
    feed = reused("free-frame")

    with pytest.raises(Violation, match="frame 8 is freed, still mapped at 0x0") as caught:
        feed.free("pagedaemon", 8)

    assert caught.value.invariant == 2
    assert caught.value.frame == 8
    assert [access.actor for access in caught.value.accesses if access] == ["fault0", "pagedaemon"]


def test_a_frame_is_cached_under_a_pte() -> None:
    feed = reused("free-frame")

    with pytest.raises(Violation, match="frame 8 is cached, still mapped"):
        feed.say("pagedaemon", "page.queue", 8, 2, 4)


def test_a_cached_frame_is_mapped() -> None:
    feed = Feed("free-frame").guest()
    feed.say("pagedaemon", "page.queue", 8, 2, 4)

    with pytest.raises(Violation, match="frame 8 is cache and is mapped"):
        feed.pte("fault0", 0, 8, RO)


def test_a_pte_is_gone_before_the_frame_is_freed() -> None:
    feed = reused()
    feed.remove("pagedaemon", 0, 8, RO)
    feed.say("pagedaemon", "page.flags", 8, 0, 0x20)
    feed.free("pagedaemon", 8)
    feed.alloc("fault1", 8, 3, "other")
    feed.say("fault1", "page.zero", 8)


def test_a_freed_frame_is_written() -> None:
    feed = reused("freed-access")
    feed.free("pagedaemon", 8)

    with pytest.raises(Violation, match="cpu 0 writes a freed frame"):
        feed.store("user", 0, 8, 5)


@pytest.mark.parametrize("verb", ["reads", "writes"])
def test_a_reused_frame_is_accessed(verb: str) -> None:
    feed = reused("freed-access")
    feed.free("pagedaemon", 8)
    feed.alloc("fault1", 8, 3, "other")

    with pytest.raises(Violation, match=f"cpu 0 {verb} a frame that now belongs") as caught:
        feed.load("user", 0, 8) if verb == "reads" else feed.store("user", 0, 8, 5)

    text = str(caught.value)
    assert caught.value.owners == ("image[8]", "other[3] (generation 2)")
    assert caught.value.accesses[0] is not None
    assert caught.value.accesses[0].name == "page.alloc"
    assert "vmspace 0x10 of process 7" in text
    assert "apart" in text


def test_a_tlb_entry_alone_is_enough() -> None:
    """The PTE went, one CPU was not flushed (W24)."""
    feed = reused("freed-access", "free-frame")
    feed.remove("pagedaemon", 0, 8, RO, cpu=None)
    feed.free("pagedaemon", 8)
    feed.alloc("fault1", 8, 3, "other")

    with pytest.raises(Violation, match="writes a frame that now belongs"):
        feed.store("user", 0, 8, 5)


def test_the_new_owner_may_use_its_frame() -> None:
    feed = reused()
    feed.remove("pagedaemon", 0, 8, RO)
    feed.say("pagedaemon", "page.flags", 8, 0, 0x20)
    feed.free("pagedaemon", 8)
    feed.alloc("fault0", 8, 9)
    feed.say("fault0", "page.zero", 8)
    feed.enter("fault0", 0x1000, 8, RW)
    feed.say("fault0", "page.dirty", 8, 255)
    feed.store("user", 0x1000, 8, 5)


def test_an_access_nobody_explained_is_no_log_of_ours() -> None:
    feed = Feed("freed-access").guest()

    with pytest.raises(ValueError, match="without a TLB entry"):
        feed.load("user", 0, 8)


def test_a_store_is_emulated_to_a_freed_frame() -> None:
    feed = Feed("freed-access").guest()
    feed.free("pagedaemon", 8)

    with pytest.raises(Violation, match="cpu 0 writes a freed frame"):
        feed.say("fault0", "mem.emulate", 0, GUEST, 0, 8, 0, 5)
