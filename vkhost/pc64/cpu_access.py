"""One memory access of a CPU as an effect, and the hardware's page table walk.

What an access touches depends on the TLB at the moment it is taken: the word, through a cached
translation; or else the PTE, whose translation it caches. So the footprint is computed when asked.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from vkprotocol.effects import Also, Effect, Step

from vkhost.pc64.pmap_bits import PTE_A, PTE_FRAME, PTE_M, PTE_NX, PTE_RW
from vkhost.pc64.tlb import TlbEntry, TlbSlot
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE

if TYPE_CHECKING:
    from vkhost.pc64.cpu import Cpu
    from vkhost.pc64.physmem import Frame
    from vkhost.pc64.pmap import Pmap

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
        if entry is None or not tlb_permits(entry, self.fault_type):
            roots = pmap.roots
            if roots is None:
                return ((slot, True), (pmap.pte(self.va), True))
            walk = (self.cpu.tlb.walk, roots.at(self.va) is not None)
            return ((slot, True), (pmap.pte(self.va), True), (roots, False), walk)
        frame = entry.frame
        writes = self.fault_type == VM_PROT_WRITE
        if self.width == PAGE:
            return ((slot, False), (frame.bulk, True))
        return ((slot, False), (frame.word(self.va >> 3 & 511), writes), (frame.bulk, False))


class Write:
    """A write access with what it writes, so that the fault it causes can perform it in the CPU's
    place (rmap/shadow.py). `done`: it has been, and this is its `result`.

    `operand`: the value; (old, new) of a cmpset; the content of a page.
    """

    __slots__ = ("access", "done", "operand", "pmap", "result")

    def __init__(self, access: Access, pmap: Pmap, operand: Any) -> None:
        self.access = access
        self.pmap = pmap
        self.operand = operand
        self.done = False
        self.result: int | bool = 0

    @property
    def idx(self) -> int | None:
        """The word it writes; None: all of them."""
        return None if self.access.width == PAGE else self.access.va >> 3 & 511

    @coroutine
    def perform(self, frame: Frame) -> Step:
        access, idx = self.access, self.idx
        kernel = access.cpu.kernel
        if idx is None:
            yield Effect(frame.bulk, access.op, write=True)
            frame.put_bytes(self.operand)
            self._emit(frame, 0, frame.words[0])
            kernel.emit("page.write", frame.pfn, self.operand)
        else:
            yield frame.word(idx).write
            old = frame.words[idx]
            new = modified(access.op, old, self.operand)
            self.result = old == self.operand[0] if access.op == "cmpset" else old
            frame.words[idx] = new
            self._emit(frame, idx, new)
        self.done = True

    def _emit(self, frame: Frame, idx: int, new: int) -> None:
        cpu, va = self.access.cpu, self.access.va
        cpu.kernel.emit("mem.emulate", cpu.id, self.pmap.id, va, frame.pfn, idx, new)


def modified(op: str, old: int, operand: Any) -> int:
    """What a write access leaves of a word."""
    new: int
    match op:
        case "or":
            new = old | operand
        case "andn":
            new = old & ~operand
        case "cmpset":
            new = operand[1] if old == operand[0] else old
        case _:
            new = operand
    return new


def tlb_permits(entry: TlbEntry, fault_type: int) -> bool:
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
