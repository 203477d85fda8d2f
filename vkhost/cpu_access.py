"""One memory access of a CPU as an effect, and the hardware's page table walk.

What an access touches depends on the TLB at the moment it is taken: the word, through a cached
translation; or else the PTE, whose translation it caches. So the footprint is computed when asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Also, Effect

from vkhost.pmap_bits import PTE_A, PTE_FRAME, PTE_M, PTE_NX, PTE_RW
from vkhost.tlb import TlbEntry, TlbSlot
from vkhost.vm import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE

if TYPE_CHECKING:
    from vkhost.cpu import Cpu
    from vkhost.pmap import Pmap

WORD: Final = 0  # the access is to one word
PAGE: Final = 1  # to all of the page's


class Access(Effect):
    """A load, store, fetch or read-modify-write at `va` by `cpu`.

    Announced on %cr3, which every translation depends on; the rest of the footprint is `also`.
    """

    __slots__ = ("cpu", "fault_type", "va", "width")

    def __init__(self, cpu: Cpu, va: int, op: str, fault_type: int, width: int = WORD) -> None:
        self.obj = cpu.tlb.root
        self.op = op
        self.write = False
        self.guard = None
        self.deadline = None
        self.cpu = cpu
        self.va = va
        self.fault_type = fault_type
        self.width = width

    def __repr__(self) -> str:
        return f"<{self.op} cpu{self.cpu.id} {self.va:#x}>"

    @property
    def also(self) -> Also:  # type: ignore[override]
        pmap: Pmap = self.obj.state
        slot = self.cpu.tlb.slot(pmap, self.va >> 12)
        entry: TlbEntry | None = slot.state
        if entry is None or not permits(entry, self.fault_type):
            return ((slot, True), (pmap.pte(self.va), True))
        frame = entry.frame
        writes = self.fault_type == VM_PROT_WRITE
        if self.width == PAGE:
            return ((slot, False), (frame.bulk, True))
        return ((slot, False), (frame.word(self.va >> 3 & 511), writes), (frame.bulk, False))


def permits(entry: TlbEntry, fault_type: int) -> bool:
    if fault_type == VM_PROT_WRITE:
        return entry.writable
    return fault_type == VM_PROT_READ or entry.executable


def walk(cpu: Cpu, pmap: Pmap, slot: TlbSlot, va: int, fault_type: int) -> bool:
    """The hardware's walk: set A (and M for a write) in the PTE and cache it. False: page fault,
    which also drops what was cached for the page. In a step that writes slot and PTE."""
    pte = pmap.pte(va)
    old: int = pte.state
    if not old or _forbids(old, fault_type):
        if slot.state is not None:
            cpu.tlb.drop(pmap, va)
        return False
    new = old | (PTE_A | PTE_M if fault_type == VM_PROT_WRITE else PTE_A)
    kernel = cpu.kernel
    if new != old:
        pte.state = new
        kernel.emit("pte.write", pmap.id, pte.va, old, new, "walk")
    frame = kernel.physmem.frames[(new & PTE_FRAME) >> 12]
    cpu.tlb.fill(slot, TlbEntry(frame, new & ~PTE_FRAME, pte.generation))
    kernel.emit("tlb.fill", cpu.id, pmap.id, pte.va, frame.pfn, new & ~PTE_FRAME)
    return True


def _forbids(pte: int, fault_type: int) -> bool:
    if fault_type == VM_PROT_WRITE:
        return not pte & PTE_RW
    return fault_type == VM_PROT_EXECUTE and bool(pte & PTE_NX)
