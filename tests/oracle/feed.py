"""Events fed by hand: a guest whose page table maps va 0 to image page 8, in a few frames.

Image pages 0-3 are the tables (frames 0-3), 8 and 9 are data (frames 8, 9). pmap 1 is the guest
process's, VPAGETABLE; pmap 2 the vkernel's own, which has the image as its DMAP.
"""

from __future__ import annotations

from typing import Any

from vkemu.oracle import DEFAULT_CHECKS, Oracle
from vkprotocol.events import validate
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_RW, VPTE_U, VPTE_V

from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_MANAGED, PTE_NX, PTE_RW, PTE_U, PTE_V
from vkhost.vm.vm_page import PG_MAPPED, PG_WRITEABLE

IMAGE = "image"
GUEST, OWN = 1, 2
DMAP = 1 << 40
TABLE = VPTE_V | VPTE_RW | VPTE_U | VPTE_A | VPTE_M
LEAF = VPTE_V | VPTE_RW | VPTE_U | VPTE_A
RO = PTE_V | PTE_U | PTE_MANAGED | PTE_A
RW = RO | PTE_RW | PTE_M
EXECUTE = 0
NO_EXECUTE = PTE_NX


class Feed:
    """`say` feeds one event as some actor; the other methods feed the few that belong together."""

    def __init__(self, *checks: str) -> None:
        self.oracle = Oracle(checks or DEFAULT_CHECKS)
        self.speaker = "set-up"
        self.oracle.actor = lambda: self.speaker
        self.frames: dict[int, int] = {}  # pfn -> generation

    def say(self, actor: str, name: str, *args: Any) -> None:
        wrong = validate(name, args)
        assert wrong is None, wrong
        self.speaker = actor
        self.oracle(name, *args)

    def alloc(self, actor: str, pfn: int, pindex: int, obj: str = IMAGE) -> None:
        self.frames[pfn] = self.frames.get(pfn, 0) + 1
        self.say(actor, "page.alloc", pfn, self.frames[pfn], obj, pindex)

    def free(self, actor: str, pfn: int) -> None:
        self.say(actor, "page.free", pfn, self.frames[pfn])

    def guest(self) -> Feed:
        """The set-up named above: a resident tree, va 0 valid, nothing in any PTE."""
        say = self.say
        say("set-up", "proc.create", 7, OWN)
        say("set-up", "vmspace.create", 7, 0x10, GUEST)
        say("set-up", "object.create", IMAGE, "OBJT_VNODE", 16)
        say("set-up", "map.insert", GUEST, 0, 1 << 21, "vpagetable", IMAGE, 0)
        say("set-up", "map.insert", OWN, DMAP, DMAP + (16 << 12), "normal", IMAGE, 0)
        for pfn in (0, 1, 2, 3, 8, 9):
            self.alloc("set-up", pfn, pfn)
            say("set-up", "page.zero", pfn)
            say("set-up", "page.dirty", pfn, 255)
        for pfn in range(4):
            self.enter("set-up", DMAP + (pfn << 12), pfn, RW, pmap=OWN, cpu=1)
        for pfn in range(3):
            self.edit(0, (pfn + 1) << 12 | TABLE, pindex=pfn)
        self.edit(0, 8 << 12 | LEAF)
        self.edit(1, 9 << 12 | LEAF | VPTE_M)
        say("set-up", "setmap.begin", GUEST, 0, 1 << 21, TABLE)
        say("set-up", "setmap.end", GUEST, 0, 1 << 21, TABLE)
        say("set-up", "cpu.active", GUEST, 0b101)
        say("set-up", "cpu.pmap", 0, GUEST)
        say("set-up", "cpu.pmap", 2, GUEST)
        return self

    def edit(self, i: int, vpte: int, actor: str = "kern", pindex: int = 3) -> None:
        """The guest kernel stores a VPTE through its DMAP, on CPU 1."""
        self.say(actor, "mem.store", 1, OWN, DMAP + (pindex << 12) + 8 * i, pindex, i, vpte)

    def enter(
        self, actor: str, va: int, pfn: int, bits: int = RO, *, pmap: int = GUEST, cpu: int = 0
    ) -> None:
        """Flags, PTE, TLB."""
        flags = PG_MAPPED | (PG_WRITEABLE if bits & PTE_RW else 0)
        self.say(actor, "page.flags", pfn, flags, 0)
        self.pte(actor, va, pfn, bits, pmap=pmap)
        self.say(actor, "tlb.fill", cpu, pmap, va, pfn, bits)

    def pte(self, actor: str, va: int, pfn: int, bits: int, *, pmap: int = GUEST) -> None:
        self.say(actor, "pte.write", pmap, va, 0, pfn << 12 | bits, "enter")

    def remove(self, actor: str, va: int, pfn: int, bits: int, cpu: int | None = 0) -> None:
        """The PTE goes; and from the TLB of `cpu`, if one is named."""
        self.say(actor, "pte.write", GUEST, va, pfn << 12 | bits, 0, "remove")
        if cpu is not None:
            self.say(actor, "tlb.flush", cpu, va)

    def fault(self, actor: str, va: int, kind: str = "read") -> None:
        self.say(actor, "fault.begin", GUEST, va, kind)
        self.say(actor, "ilock.enter", GUEST, va, va + 4096)

    def resolved(self, actor: str, va: int) -> None:
        self.say(actor, "ilock.exit", GUEST, va, va + 4096)
        self.say(actor, "fault.end", GUEST, va, "KERN_SUCCESS")

    def inval(self, actor: str, start: int, end: int) -> None:
        self.say(actor, "inval.begin", GUEST, start, end)
        self.say(actor, "inval.end", GUEST, start, end)

    def store(self, actor: str, va: int, pfn: int, value: int, cpu: int = 0) -> None:
        self.say(actor, "mem.store", cpu, GUEST, va, pfn, va >> 3 & 511, value)

    def load(self, actor: str, va: int, pfn: int, value: int = 0, cpu: int = 0) -> None:
        self.say(actor, "mem.load", cpu, GUEST, va, pfn, va >> 3 & 511, value)
