"""The two-dimensional walk of a CPU with nested paging (EPT, NPT): policy `nested` only.

The CPU reads the guest's own page table. A frame in it is a *guest-physical* page, a pindex of the
memory image, and each that the walk uses - a table, at last the page itself - is translated by the
second-stage table of the image (rmap/nested.py), whose entries are ordinary PTEs. Both stages have
to permit the access, and the combination is what the TLB keeps: nothing else does.

A walk is one access to memory after another, so a guest on another CPU may edit between them. What
it may not do is survive a flush: interrupts come between instructions, so one that is repeated
walks anew. `Tlb.walking` is how a flush tells a walk that it was overtaken, which the walk looks at
before it leaves a trace anywhere.

Rights and bits as the hardware has them, where vm_fault's walk differs (facts 3.3): RW and NX count
at every level for every access (W28), M is set in the last VPTE only, and a VPTE is read and
updated in one step. With A and M bits in its second stage, that stage counts the reading of a table
as a write (Intel SDM 3C, Accessed and Dirty Flags for EPT): a walk dirties the tables it reads.
Where second-stage tables can be freed (ept_table.py) each translation of the second stage is two
steps: the directory, which says where the table is, and the table.
Left out: caches of the upper levels, and of either stage alone.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Also, Cell, Effect, Step
from vkprotocol.param import PAGE_MASK, PAGE_SHIFT
from vkprotocol.vpte import (
    VPTE_A,
    VPTE_M,
    VPTE_NX,
    VPTE_PAGE_BITS,
    VPTE_PAGE_MASK,
    VPTE_PS,
    VPTE_ROOT_SHIFT,
    VPTE_RW,
    vpte_frame,
    vpte_permits,
)

from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_NX, PTE_RW, PTE_U, PTE_V, pte_pfn, pte_prot
from vkhost.pc64.tlb import TlbEntry, TlbSlot
from vkhost.vm.vm import VM_PROT_ALL, VM_PROT_EXECUTE, VM_PROT_WRITE

if TYPE_CHECKING:
    from vkhost.pc64.cpu import Cpu
    from vkhost.pc64.ept_table import EptTable
    from vkhost.pc64.physmem import Frame
    from vkhost.pc64.pmap import Pmap
    from vkhost.pc64.pmap_pte import Pte
    from vkhost.vm.vmspace import Vmspace

NO_WORD: Final = -1


class Root:
    """What the CPU knows of a VPAGETABLE entry: bytes [start, end) are walked from `pde` on, by
    index `offset` + (va - start); `prot` is the entry's, `ept` the second stage. Immutable."""

    __slots__ = ("end", "ept", "offset", "pde", "prot", "start")

    def __init__(
        self, start: int, end: int, offset: int, pde: int, prot: int, ept: Vmspace
    ) -> None:
        self.start = start
        self.end = end
        self.offset = offset
        self.pde = pde
        self.prot = prot
        self.ept = ept


class Roots(Cell):
    """Of one pmap; state: a tuple of Root, no two of which overlap. A walk that has begun goes on
    with its root, so one that is taken away is in use until the TLBs have been flushed."""

    __slots__ = ()

    def at(self, va: int) -> Root | None:
        for root in self.state:
            if root.start <= va < root.end:
                return root  # type: ignore[no-any-return]
        return None


class Walk:
    """The walk a CPU is at. `gpa` is where it reads next, `idx` which word (NO_WORD: the page that
    is asked for). `interrupted`: the TLB was flushed, so that what was read no longer counts.
    `directory`: where it has read that the second-stage table of `gpa` is, and `held` what."""

    __slots__ = (
        "directory", "fault_type", "flushes", "frames", "gpa", "held", "idx", "interrupted",
        "leaf", "root", "slot", "tables", "tlb_root", "va", "violation",
    )  # fmt: skip

    def __init__(self, cpu: Cpu, root: Root, slot: TlbSlot, va: int, fault_type: int) -> None:
        self.frames = cpu.kernel.physmem.frames
        self.tlb_root = cpu.tlb.root
        self.flushes: Also = ((cpu.tlb.root, False), (cpu.tlb.walk, True))
        self.violation = cpu.violation
        self.root = root
        self.slot = slot
        self.va = va
        self.fault_type = fault_type
        self.interrupted = False
        self.gpa = 0
        self.idx = NO_WORD
        self.leaf = False
        assert root.ept.pmap.users is not None
        self.tables = root.ept.pmap.users.tables
        self.directory: EptTable | None = None
        self.held = 0

    @property
    def second(self) -> Pte:
        """The second-stage PTE of `gpa`."""
        return self.root.ept.pmap.pte(self.gpa)

    @property
    def marks(self) -> int:
        """What is set in that PTE: its A and M are the host's, those of the VPTEs the guest's."""
        table = self.idx != NO_WORD
        return PTE_A | PTE_M if table or self.fault_type & VM_PROT_WRITE else PTE_A

    @property
    def needs(self) -> int:
        """The access of a fault if that PTE does not permit it."""
        return self.fault_type if self.idx == NO_WORD else VM_PROT_WRITE

    @property
    def torn(self) -> bool:
        """The second-stage table has been taken out of the directory meanwhile."""
        return self.directory is not None and self.directory.state != self.held

    def table(self) -> Frame | None:
        """The table that is read next, which the second stage must let be written."""
        pte: int = 0 if self.torn else self.second.state
        return self.frames[pte_pfn(pte)] if pte & PTE_RW else None

    def written_back(self, vpte: int) -> int:
        """The VPTE with A, and M in the last one of a write, if it permits the access."""
        if not vpte_permits(vpte, self.fault_type):
            return vpte
        last = self.leaf or vpte & VPTE_PS
        return vpte | (VPTE_A | VPTE_M if last and self.fault_type & VM_PROT_WRITE else VPTE_A)

    def writes(self, frame: Frame) -> bool:
        """Does reading the next VPTE set anything?"""
        vpte = frame.words[self.idx]
        return bool(self.marks & ~self.second.state) or self.written_back(vpte) != vpte


class _ReadVpte(Effect):
    """A VPTE is read, through the second stage. Only where bits are to be set does a flush before
    matter: of what was merely read nothing is left if the walk turns out to be interrupted."""

    __slots__ = ("walk",)

    def __init__(self, walk: Walk) -> None:
        self.obj = walk.second
        self.op = "nested walk"
        self.write = False
        self.guard = None
        self.deadline = None
        self.walk = walk

    def __repr__(self) -> str:
        return f"<nested walk of {self.walk.va:#x} at {self.walk.gpa:#x}>"

    @property
    def also(self) -> Also:  # type: ignore[override]
        walk = self.walk
        directory = () if walk.directory is None else ((walk.directory, False),)
        frame = walk.table()
        if frame is None:
            return ((walk.violation, True), *walk.flushes, *directory)
        word = frame.word(walk.idx)
        if not walk.writes(frame):
            return ((word, False), (frame.bulk, False), *directory)
        return (
            (walk.second, True), (word, True), (frame.bulk, False), *walk.flushes, *directory,
        )  # fmt: skip


class _End(Effect):
    """The walk ends, in the TLB or in a fault of the guest."""

    __slots__ = ("walk",)

    def __init__(self, walk: Walk) -> None:
        self.obj = walk.tlb_root
        self.op = "end of nested walk"
        self.write = False
        self.guard = None
        self.deadline = None
        self.walk = walk

    @property
    def also(self) -> Also:  # type: ignore[override]
        walk = self.walk
        slot, flushes = (walk.slot, True), walk.flushes
        if walk.idx != NO_WORD:
            return (slot, *flushes)
        marks = bool(walk.marks & ~walk.second.state)
        directory = () if walk.directory is None else ((walk.directory, False),)
        return (slot, (walk.second, marks), (walk.violation, True), *flushes, *directory)


FILLED: Final = "filled"
GUEST_FAULT: Final = "guest-fault"
VIOLATION: Final = "violation"  # of the second stage
INTERRUPTED: Final = "interrupted"


@coroutine
def walk_nested(cpu: Cpu, root: Root, va: int, fault_type: int) -> Step:
    """(FILLED, GUEST_FAULT, VIOLATION or INTERRUPTED, the walk as far as it came)."""
    emit = cpu.kernel.emit
    pmap: Pmap = cpu.tlb.root.state
    slot = cpu.tlb.slot(pmap, va >> PAGE_SHIFT)
    walk = Walk(cpu, root, slot, va, fault_type)
    emit("walk.begin", cpu.id, pmap.id, va & ~PAGE_MASK)
    cpu.tlb.walking = walk
    result: str = yield from _walk(cpu, pmap, walk)
    cpu.tlb.walking = None
    emit("walk.end", cpu.id, pmap.id, va & ~PAGE_MASK, result, root.ept.pmap.id, walk.gpa)
    return result, walk


@coroutine
def _walk(cpu: Cpu, pmap: Pmap, walk: Walk) -> Step:
    """All but the beginning and the end of it. Between two yields is one access."""
    root, fault_type = walk.root, walk.fault_type
    index = walk.va - root.start + root.offset >> PAGE_SHIFT
    vshift = VPTE_ROOT_SHIFT
    vpte = root.pde
    rights = _rights(vpte)
    cpu.kernel.emit("vpte.read", -1, 0, vpte, vshift)
    while vpte_permits(vpte, fault_type) and not vpte & VPTE_PS and vshift:
        vshift -= VPTE_PAGE_BITS
        walk.gpa = vpte_frame(vpte) << PAGE_SHIFT
        walk.idx = index >> vshift & VPTE_PAGE_MASK
        walk.leaf = not vshift
        if walk.tables is not None:
            yield from _read_directory(walk)
        yield _ReadVpte(walk)
        _tell_table(cpu, walk)
        frame = walk.table()
        if frame is None:
            return INTERRUPTED if _interrupted(cpu, walk) else _violation(walk)
        if walk.writes(frame) and _interrupted(cpu, walk):
            return INTERRUPTED
        vpte = _read_vpte(cpu, walk, frame, vshift)
        rights &= _rights(vpte)
    if not vpte_permits(vpte, fault_type):
        yield _End(walk)
        return _guest_fault(cpu, pmap, walk)
    # RW without M is not cached: the first store walks again, and sets it. The master pde, where
    # it is the last, has no M.
    if not vpte & VPTE_M and vshift != VPTE_ROOT_SHIFT:
        rights &= ~VPTE_RW
    pindex = vpte_frame(vpte) + (index & (1 << vshift) - 1)
    walk.gpa, walk.idx = pindex << PAGE_SHIFT, NO_WORD
    if walk.tables is not None:
        yield from _read_directory(walk)
    yield _End(walk)
    _tell_table(cpu, walk)
    return INTERRUPTED if _interrupted(cpu, walk) else _fill(cpu, pmap, walk, rights)


@coroutine
def _read_directory(walk: Walk) -> Step:
    """Where the second-stage table of `gpa` is."""
    assert walk.tables is not None
    walk.directory = walk.tables[walk.second.table]
    yield walk.directory._read
    walk.held = walk.directory.state


def _tell_table(cpu: Cpu, walk: Walk) -> None:
    """What has been read from there. Of a walk that was interrupted nothing is left."""
    if walk.held > 0 and not walk.interrupted:
        ept, slot = walk.root.ept.pmap.id, walk.second.table.slot
        cpu.kernel.emit("ept.read", cpu.id, ept, slot, walk.held)


def _interrupted(cpu: Cpu, walk: Walk) -> bool:
    """Has a flush come since the walk began? In a step that reads what flushes write."""
    return walk.interrupted and "nested-walk-uninterrupted" not in cpu.kernel.mutants


def _rights(vpte: int) -> int:
    """RW, and NX the other way round, so that what all levels permit is their `and`."""
    return vpte & VPTE_RW | ~vpte & VPTE_NX


def _read_vpte(cpu: Cpu, walk: Walk, frame: Frame, vshift: int) -> int:
    """In a step that may write the second-stage PTE and the VPTE; the VPTE as it is then."""
    _mark(cpu, walk)
    idx = walk.idx
    vpte = frame.words[idx]
    cpu.kernel.emit("vpte.read", frame.pfn, idx, vpte, vshift)
    new = walk.written_back(vpte)
    if new != vpte:
        frame.words[idx] = new
        cpu.kernel.emit("vpte.am", frame.pfn, idx, vpte, new)
    return new


def _guest_fault(cpu: Cpu, pmap: Pmap, walk: Walk) -> str:
    """A page fault takes along what is cached of its address."""
    if _interrupted(cpu, walk):
        return INTERRUPTED
    if walk.slot.state is not None:
        cpu.tlb.drop(pmap, walk.va)
    return GUEST_FAULT


def _violation(walk: Walk) -> str:
    """The fault is counted in the step that finds it: a flush of this CPU, without which nobody
    releases the second stage, has not come."""
    walk.violation.state = walk.root.ept
    return VIOLATION


def _fill(cpu: Cpu, pmap: Pmap, walk: Walk, rights: int) -> str:
    """The page itself. In a step that writes the TLB slot and may write the second-stage PTE."""
    second, prot = walk.second, walk.root.prot
    ignored = "nested-protection-ignored" in cpu.kernel.mutants
    permitted = 0 if walk.torn else pte_prot(second.state)
    if ignored and permitted:
        permitted = VM_PROT_ALL
    if walk.fault_type & ~permitted:
        return _violation(walk)
    pte = _mark(cpu, walk)
    bits = PTE_V | PTE_U | pte & (PTE_A | PTE_M)
    if rights & VPTE_RW and prot & permitted & VM_PROT_WRITE:
        bits |= PTE_RW
    if not (rights & VPTE_NX and prot & permitted & VM_PROT_EXECUTE):
        bits |= PTE_NX
    frame = walk.frames[pte_pfn(pte)]
    cpu.tlb.fill(walk.slot, TlbEntry(frame, bits, second.generation))
    cpu.kernel.emit("tlb.fill", cpu.id, pmap.id, walk.va & ~PAGE_MASK, frame.pfn, bits)
    return FILLED


def _mark(cpu: Cpu, walk: Walk) -> int:
    """A and M of the second-stage PTE; the PTE with them."""
    second = walk.second
    old: int = second.state
    new = old | walk.marks
    if new != old:
        second.state = new
        cpu.kernel.emit("pte.write", walk.root.ept.pmap.id, second.va, old, new, "walk")
    return new
