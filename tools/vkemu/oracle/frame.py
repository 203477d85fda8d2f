"""A physical frame and the translations to it, as the oracle knows them."""

from __future__ import annotations

from typing import Any, Final

from vkprotocol.events import NO_OBJECT, QUEUES

from vkemu.oracle.violation import Happening

# pc64 PTE bits (vkhost.pc64.pmap_bits), repeated because a log is read without a kernel.
PTE_V: Final = 0x001
PTE_RW: Final = 0x002
PTE_M: Final = 0x040
PTE_MANAGED: Final = 0x400
PTE_NX: Final = 1 << 63
PTE_FRAME: Final = 0x000F_FFFF_FFFF_F000

PQ_NONE: Final = QUEUES.index("none")
PQ_ACTIVE: Final = QUEUES.index("active")

Id = int | str


class Translation:
    """A PTE, or a TLB entry made from it. `gen` and `owner` are the frame's when the PTE was
    installed. `nested`: a TLB entry that combines a guest's page table with a second stage."""

    __slots__ = (
        "bits", "dead", "frame", "gen", "installed", "leaf", "nested", "owner", "pfn", "pmap",
        "vpn",
    )  # fmt: skip

    def __init__(
        self, pmap: Id, vpn: int, frame: Frame, bits: int, gen: int, installed: Happening
    ) -> None:
        self.pmap = pmap
        self.vpn = vpn
        self.frame = frame
        self.pfn = frame.pfn
        self.bits = bits
        self.gen = gen
        self.owner = (frame.object, frame.pindex)
        self.installed = installed
        self.dead: Happening | None = None  # the INVAL that it must not be used after
        self.nested = False
        self.leaf: Any = None  # where its VPTE was, a note of the guest-dirty check


class Frame:
    """What is true of a physical frame."""

    __slots__ = (
        "changed", "dirty", "flags", "free", "freed", "gen", "history", "initialised", "object",
        "pfn", "pindex", "previous", "ptes", "queue", "stamp", "was", "words",
    )  # fmt: skip

    def __init__(self, pfn: int) -> None:
        self.pfn = pfn
        self.gen = 0
        self.object: Id = NO_OBJECT
        self.pindex = -1
        self.previous: tuple[Id, int] = (NO_OBJECT, -1)
        self.free = True
        self.freed: Happening | None = None
        self.queue = "free"
        self.flags = 0
        self.dirty = 0
        self.changed: Happening | None = None  # the first change since it was last clean
        self.initialised = False  # has content of its own, not its last owner's
        self.words: dict[int, int] = {}  # those that are not 0
        self.was = 0  # what the word of the last store held before it
        self.stamp = 0  # the step of the last change of them
        self.ptes: dict[tuple[Id, int], Translation] = {}
        self.history: list[Happening] = []  # the latest

    def remember(self, happening: Happening) -> None:
        self.history.append(happening)
        most = 24
        if len(self.history) > most:
            del self.history[0]
