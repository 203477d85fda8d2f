"""The memory unicorn sees: pages of a buffer of its own, each a copy of a frame.

What a run reads and writes is copied anew for it. Pages that are executed have slots of their own,
found by content and kept: unicorn keeps what it has translated by slot, and bytes that change give
another slot.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from vkprotocol.param import PAGE_SIZE

from vkhost.vm.vm import VM_PROT_WRITE

if TYPE_CHECKING:
    from vkhost.pc64.tlb import TlbEntry

SLOTS: Final = 512
TEXT_SLOTS: Final = 320  # the first of them; the rest is for what a run reads and writes
SPARE_PAGE: Final = SLOTS * PAGE_SIZE  # for fxsave and the way to user mode


class Touch:
    """A page that a run has used: through which entry, how, and where it is copied.

    `rip`: the instruction that came first. `before`: the words before the first store.
    """

    __slots__ = ("before", "entry", "kind", "rip", "slot", "vpn")

    def __init__(self, vpn: int, entry: TlbEntry, kind: int, slot: int, rip: int) -> None:
        self.vpn = vpn
        self.entry = entry
        self.kind = kind
        self.slot = slot
        self.rip = rip
        self.before = b""


class Slots:
    """`next`: the first slot that this run has not used for data."""

    __slots__ = ("memory", "next", "text_of", "texts")

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SPARE_PAGE + PAGE_SIZE)
        self.next = TEXT_SLOTS
        self.texts: dict[bytes, int] = {}
        self.text_of: dict[int, bytes] = {}  # pfn: what its slot holds

    def page(self, slot: int) -> bytes:
        return self.memory[slot * PAGE_SIZE : (slot + 1) * PAGE_SIZE]

    def data(self, entry: TlbEntry) -> int:
        slot = self.next
        assert slot < SLOTS, "a step touches fewer pages than that"
        self.next += 1
        self.memory[slot * PAGE_SIZE : (slot + 1) * PAGE_SIZE] = entry.frame.words.tobytes()
        return slot

    def text(self, entry: TlbEntry) -> int:
        content = entry.frame.words.tobytes()
        known = self.text_of.get(entry.pfn)
        if known is not None and known == content:
            return self.texts[known]
        slot = self.texts.get(content)
        if slot is None:
            slot = self.texts[content] = len(self.texts)
            self.memory[slot * PAGE_SIZE : (slot + 1) * PAGE_SIZE] = content
        self.text_of[entry.pfn] = content
        return slot

    def full(self) -> bool:
        """Before a run: True when all text had to go, and so must what was translated from it."""
        if len(self.texts) < TEXT_SLOTS // 2:
            return False
        self.texts.clear()
        self.text_of.clear()
        return True


def incoherent(touched: Collection[Touch], touch: Touch | None, pfn: int, kind: int) -> bool:
    """Is the frame copied twice, as by another address or as text, and written in one?"""
    others = [t for t in touched if t.entry.pfn == pfn and t is not touch]
    writes = kind == VM_PROT_WRITE or any(t.kind == VM_PROT_WRITE for t in others)
    return bool(others) and writes
