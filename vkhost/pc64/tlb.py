"""The TLB of one CPU: cached translations that nobody takes back but its owner's flush.

Unbounded, so that an entry stays stale for as long as the kernel lets it: an eviction could only
hide a missing shootdown.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from vkprotocol.effects import Also, Effect, Shared, Step
from vkprotocol.param import PAGE_SHIFT

from vkhost.pc64.pmap_bits import PTE_M, PTE_NX, PTE_RW

if TYPE_CHECKING:
    from vkhost.pc64.cpu import Cpu
    from vkhost.pc64.nested_walk import Walk
    from vkhost.pc64.physmem import Frame
    from vkhost.pc64.pmap import Pmap

INVLTLB: Final = -1  # in place of a va: everything


class TlbEntry:
    """A translation as it was when filled. Immutable.

    `generation`: the frame's when the PTE was installed. `writable`: PTE had RW and M, so that a
    store needs no walk to set M.
    """

    __slots__ = ("bits", "executable", "frame", "generation", "pfn", "writable")

    def __init__(self, frame: Frame, bits: int, generation: int) -> None:
        self.frame = frame
        self.pfn = frame.pfn
        self.bits = bits
        self.generation = generation
        self.writable = bits & (PTE_RW | PTE_M) == PTE_RW | PTE_M
        self.executable = not bits & PTE_NX


class TlbSlot(Shared):
    """Where the translation of one page would be; state: a TlbEntry or None."""

    __slots__ = ("_flush",)

    def __init__(self, cpu: int, asid: int | str, vpn: int, interrupts: Also) -> None:
        super().__init__(("tlb", cpu, asid, vpn))
        self._flush = Effect(self, "invlpg", write=True, also=interrupts)


class Tlb:
    """Slots are found by address space and vpn; `slots` are those of the current one.

    `root` is %cr3: its state is the pmap being run on. Every access through the TLB reads it,
    every flush of the whole TLB writes it, in place of all the slots.

    `walking`: the nested walk that the CPU is in the middle of, if any. An IPI is taken between
    instructions, so a flush interrupts it, whatever page it is of. `walk` is what the two depend on
    each other by: a flush of one page reads it, a step of a walk that minds being interrupted
    writes it, and so flushes do not depend on one another.
    """

    __slots__ = (
        "_filled", "_flush", "_interrupts", "_load_cr3", "cpu", "root", "slots", "spaces", "walk",
        "walking",
    )  # fmt: skip

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.root = Shared(("cr3", cpu.id))
        self.spaces: dict[int | str, dict[int, TlbSlot]] = {}
        self.slots: dict[int, TlbSlot] = {}
        self._filled: dict[TlbSlot, None] = {}
        self.walking: Walk | None = None
        self.walk = Shared(("walk", cpu.id))
        self._interrupts: Also = ((self.walk, False),) if cpu.kernel.rmap.walks else ()
        self._flush = Effect(self.root, "invltlb", write=True)
        self._load_cr3 = Effect(self.root, "load_cr3", write=True)

    def slot(self, pmap: Pmap, vpn: int) -> TlbSlot:
        space = self.spaces.setdefault(pmap.asid, {})
        slot = space.get(vpn)
        if slot is None:
            slot = space[vpn] = TlbSlot(self.cpu.id, pmap.asid, vpn, self._interrupts)
        return slot

    def forget(self, pmap: Pmap) -> None:
        """The pmap is gone. Slots that are empty are made again if somebody looks; what a defect
        has left in one stays, and so does what %cr3 points to until another is loaded."""
        space = self.spaces.get(pmap.asid)
        if space is None or space is self.slots:
            return
        if all(slot.state is None for slot in space.values()):
            del self.spaces[pmap.asid]

    def fill(self, slot: TlbSlot, entry: TlbEntry) -> None:
        """In a step that writes the slot."""
        slot.state = entry
        self._filled[slot] = None

    @coroutine
    def load_cr3(self, pmap: Pmap) -> Step:
        """Run on the page tables of `pmap`. Translations carry no tag on this machine: all go."""
        yield self._load_cr3
        old, self.root.state = self.root.state, pmap
        self.slots = self.spaces.setdefault(pmap.asid, {})
        kernel = self.cpu.kernel
        kernel.emit("cpu.pmap", self.cpu.id, pmap.id)
        if "lazy-tlb" not in kernel.mutants:
            self.clear()
        if old is not None and old.id not in kernel.pmaps:
            self.forget(old)

    @coroutine
    def flush(self, pmap: Pmap, va: int, npgs: int = 1) -> Step:
        """invlpg of each page, or invltlb."""
        whole = va == INVLTLB or npgs > 1
        yield self._flush if whole else self.slot(pmap, va >> PAGE_SHIFT)._flush
        self.drop(pmap, va, npgs)

    def flushed(self, pmap: Pmap, va: int, npgs: int = 1) -> Also:
        """What a flush touches. Several pages are announced as the whole TLB, which they are not:
        every step of a walk that minds being interrupted reads that, too."""
        if va == INVLTLB or npgs > 1:
            return ((self.root, True),)
        return ((self.slot(pmap, va >> PAGE_SHIFT), True), *self._interrupts)

    def drop(self, pmap: Pmap, va: int, npgs: int = 1) -> None:
        """In a step that touches what is `flushed`."""
        if va == INVLTLB:
            self.clear()
            return
        if self.walking is not None:
            self.walking.interrupted = True
        for vpn in range(va >> PAGE_SHIFT, (va >> PAGE_SHIFT) + npgs):
            slot = self.slot(pmap, vpn)
            if slot.state is not None:
                slot.state = None
                self._filled.pop(slot, None)
            self.cpu.kernel.emit("tlb.flush", self.cpu.id, vpn << PAGE_SHIFT)

    def clear(self) -> None:
        """In a step that writes `root`."""
        if self.walking is not None:
            self.walking.interrupted = True
        for slot in self._filled:
            slot.state = None
        self._filled.clear()
        self.cpu.kernel.emit("tlb.flush", self.cpu.id, INVLTLB)

    def entries(self) -> list[tuple[Any, TlbEntry]]:
        """(key, entry) of everything cached, for checks."""
        return [(slot.key, slot.state) for slot in self._filled if slot.state is not None]
