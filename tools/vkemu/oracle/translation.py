"""Invariants 1 and 6: what a VPAGETABLE mapping caches agrees with the guest's page table.

The contract is edit, then INVAL; between the two anything older may still be cached. So an entry
that disagrees with the tree of this moment is wrong exactly when an INVAL of its address has begun
after the last moment at which the tree still agreed, and has returned. Both are checked: at the
return of each INVAL, for every PTE and TLB entry in its range; at each install, for the INVALs
that returned while the fault was on its way.

An edit that no INVAL ever follows is the guest's own defect. It shows when the guest declares the
frame free (`guest.free`), or at the end of the run.

A store that a fault does in the CPU's place (`mem.emulate`) has to agree with the tree of its step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType

from vkemu.oracle.frame import PTE_FRAME, PTE_NX, PTE_RW, PTE_V, Frame, Id, Translation
from vkemu.oracle.memory import Memory, Walk
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.space import Extent
from vkemu.oracle.violation import Happening, Violation


@dataclass(slots=True)
class Inval:
    """An INVAL, or a SETMAP, which is an edit and an INVAL in one."""

    pmap: Id
    first: int
    last: int
    began: Happening
    ended: Happening | None = None


@dataclass(slots=True)
class FaultInFlight:
    """Since when the walk of a fault may have read what it acts on."""

    pmap: Id
    vpn: int
    since: int


class Translations:
    """Invariant 1 as `stale`, 6 as `rights`; one class, since both are the one comparison."""

    def __init__(self, shadow: Shadow, memory: Memory, stale: bool, rights: bool) -> None:
        self.shadow = shadow
        self.memory = memory
        self.stale = stale
        self.rights = rights
        self.running: dict[tuple[str, Id], Inval] = {}  # by actor and pmap
        self.returned: deque[Inval] = deque()
        self.faults: dict[str, FaultInFlight] = {}  # by actor
        self.given_back: dict[tuple[Id, int], Happening] = {}  # guest frames that are free
        self.last_free: dict[tuple[Id, int], Happening] = {}  # and when they last became so
        self.passed_by = False  # some INVAL left the TLB of a CPU that was not in use

    # What is wrong with an entry, if the tree says `walk`: the invariant, or 0.

    def wrong(self, t: Translation, walk: Walk | None) -> int:
        if walk is None or not self.memory.leads_to(walk.object, walk.pindex, t.frame):
            return 1 if self.stale else 0
        if self.rights and (
            (t.bits & PTE_RW and not walk.writable) or not (t.bits & PTE_NX or walk.executable)
        ):
            return 6
        return 0

    def concerned(self, t: Translation) -> bool:
        extent = self.shadow.extent(t.pmap, t.vpn)
        if extent is None or extent.maptype != "vpagetable":
            return False
        # Where the frame has another owner by now, what the tree says of it means nothing.
        frame = t.frame
        return t.gen == frame.gen and not frame.free

    # INVAL and SETMAP.

    def inval_begin(self, pmap: Id, start: int, end: int) -> None:
        who = (self.shadow.actor(), pmap)
        self.running[who] = Inval(pmap, start >> 12, end + 0xFFF >> 12, self.shadow.now())
        self.memory.watch(("inval", who))

    def inval_end(self, pmap: Id, start: int, end: int) -> None:
        who = (self.shadow.actor(), pmap)
        inval = self.running.pop(who, None)
        if inval is None:
            return
        inval.ended = self.shadow.now()
        for t in self.shadow.translations(pmap, inval.first, inval.last):
            if self.concerned(t):
                self._after(t, inval)
        for t in self.shadow.parked(pmap, inval.first, inval.last):
            t.dead = t.dead or inval.began
            self.passed_by = True
        self.memory.unwatch(("inval", who))
        self._remember(inval)

    def setmap_begin(self, pmap: Id, start: int, end: int, value: int) -> None:
        self.inval_begin(pmap, start, end)

    def setmap_end(self, pmap: Id, start: int, end: int, value: int) -> None:
        self.inval_end(pmap, start, end)

    def _remember(self, inval: Inval) -> None:
        """An install still under way may have to be judged by it."""
        self.returned.append(inval)
        oldest = min((fault.since for fault in self.faults.values()), default=self.shadow.step)
        while self.returned and self.returned[0].began.step < oldest:
            self.returned.popleft()

    def _after(self, t: Translation, inval: Inval) -> None:
        invariant = 0
        for _, walk in self.memory.walks_since(t.pmap, t.vpn, inval.began.step + 1):
            wrong = self.wrong(t, walk)
            if not wrong:
                return
            invariant = invariant or wrong
        if invariant:
            raise self._violation(t, invariant, inval.began, "has returned")

    def mem_load(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        """Nothing a CPU had cached from before it left pm_active is used again."""
        if not self.passed_by:
            return
        t = self.shadow.cached(cpu, pmap, va)
        if t is not None and t.dead is not None and self.stale:
            raise self._violation(t, 1, t.dead, f"passed cpu {cpu} by")

    mem_store = mem_load

    def mem_cmpset(
        self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int, ok: bool, old: int
    ) -> None:
        self.mem_load(cpu, pmap, va, pfn, idx, value)

    # Faults.

    def fault_begin(self, vm_map: Id, va: int, kind: str) -> None:
        actor = self.shadow.actor()
        self.faults[actor] = FaultInFlight(vm_map, va >> 12, self.shadow.step)
        self.memory.watch(("fault", actor))

    def fault_retry(self, vm_map: Id, va: int, why: str) -> None:
        self.fault_begin(vm_map, va, "")

    def ilock_enter(self, vm_map: Id, start: int, end: int) -> None:
        """The walk begins now: nothing read before counts."""
        fault = self.faults.get(self.shadow.actor())
        if fault is not None:
            fault.since = self.shadow.step

    def fault_end(self, vm_map: Id, va: int, result: str) -> None:
        actor = self.shadow.actor()
        self.faults.pop(actor, None)
        self.memory.unwatch(("fault", actor))
        if not self.faults:
            self.returned.clear()

    def pte_write(self, pmap: Id, va: int, old: int, new: int, why: str) -> None:
        if not new & PTE_V or why == "walk":
            return
        if old & PTE_V and old & PTE_FRAME == new & PTE_FRAME and not _more(old, new):
            return
        self._entered(self.shadow.ptes[pmap][va >> 12])

    def _entered(self, t: Translation) -> None:
        """By a fault, or a nested walk, that is still on its way."""
        if not self.concerned(t):
            return
        freed = self.given_back.get(t.owner)
        if freed is not None and self.stale:
            raise self._violation(t, 1, freed, "(the guest freed the frame) came before")
        fault = self.faults.get(self.shadow.actor())
        since = self.shadow.step if fault is None else fault.since
        agreed = since
        invariant = 0
        for step, walk in self.memory.walks_since(t.pmap, t.vpn, since):
            wrong = self.wrong(t, walk)
            if not wrong:
                agreed = step
                break
            invariant = invariant or wrong
        if not invariant:
            return
        for inval in self.returned:
            covers = inval.pmap == t.pmap and inval.first <= t.vpn < inval.last
            # >= and not >: a SETMAP edits in the step it begins with.
            if covers and inval.began.step >= agreed:
                raise self._violation(t, invariant, inval.began, "returned before")

    def mem_emulate(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        """It goes by no TLB, so that an INVAL is still to come is no excuse: the page table says so
        up to this step, which may write one of the words that the store itself went by."""
        frame = self.shadow.frame(pfn)
        extent = self.shadow.extent(pmap, va >> 12)
        now = self.shadow.now()
        t = Translation(pmap, va >> 12, frame, PTE_V | PTE_RW | PTE_NX, frame.gen, now)
        if extent is None or extent.maptype != "vpagetable":
            invariant = 0 if self._linear(t, extent) or not self.stale else 1
        else:
            *_, (_, walk) = self.memory.walks_since(pmap, t.vpn, self.shadow.step)
            invariant = self.wrong(t, walk)
        if invariant:
            how = "a store is emulated in the CPU's place"
            raise self._violation(t, invariant, None, how, verb="goes to")

    def _linear(self, t: Translation, extent: Extent | None) -> bool:
        if extent is None:
            return False
        return self.memory.leads_to(extent.object, t.vpn - extent.start + extent.offset, t.frame)

    # Nested walks: what they enter is in a TLB only.

    def walk_begin(self, cpu: int, pmap: Id, va: int) -> None:
        self.fault_begin(pmap, va, "")

    def walk_end(self, cpu: int, pmap: Id, va: int, why: str, ept: Id, gpa: int) -> None:
        if why == "filled":
            self._entered(self.shadow.tlbs[cpu][pmap, va >> 12])
        self.fault_end(pmap, va, why)

    def vpte_am(self, pfn: int, idx: int, old: int, new: int) -> None:
        """W16: the word is a VPTE only as long as the guest has not freed the table."""
        fault = self.faults.get(self.shadow.actor())
        frame = self.shadow.frame(pfn)
        freed = self.last_free.get((frame.object, frame.pindex))
        if self.stale and fault is not None and freed is not None and freed.step > fault.since:
            raise Violation(
                1,
                f"the walk for {fault.vpn << 12:#x} of {self.shadow.space(fault.pmap)} writes "
                f"into {self.shadow.owner(frame.object, frame.pindex)}, a table that the guest "
                "has freed meanwhile",
                check="stale-translation",
                accesses=(freed, self.shadow.now()),
                frame=pfn,
                events=frame.history,
            )

    # Defects of the guest.

    def map_remove(self, vm_map: Id, start: int, end: int) -> None:
        first, last = start >> 12, end + 0xFFF >> 12
        now = self.shadow.now()
        for t in self.shadow.translations(vm_map, first, last):
            if self.stale:
                raise self._violation(t, 1, now, "is done")
        for t in self.shadow.parked(vm_map, first, last):
            t.dead = t.dead or now
            self.passed_by = True

    def guest_free(self, proc: Id, pindex: int) -> None:
        """Nothing may lead to the frame any more."""
        if not self.stale:
            return
        for obj in self.shadow.images(proc):
            self.given_back[obj, pindex] = self.last_free[obj, pindex] = self.shadow.now()
            frame = self.shadow.resident.get((obj, pindex))
            for t in () if frame is None else self._translations_to(frame):
                if self.concerned(t):
                    raise self._violation(t, 1, None, "the guest has freed the frame")

    def guest_alloc(self, proc: Id, pindex: int, name: str) -> None:
        for obj in self.shadow.images(proc):
            self.given_back.pop((obj, pindex), None)

    def _translations_to(self, frame: Frame) -> Iterator[Translation]:
        yield from frame.ptes.values()
        for cpu, tlb in self.shadow.tlbs.items():
            for t in tlb.values():
                if t.pfn == frame.pfn and self.shadow.in_use.get(t.pmap, 0) >> cpu & 1:
                    yield t

    def finish(self) -> None:
        """No INVAL will come any more."""
        cached: list[Translation] = []
        for pmap in dict.fromkeys([*self.shadow.ptes, *self.shadow.spaces]):
            cached += self.shadow.translations(pmap, 0, 1 << 36)
        for t in cached:
            if self.concerned(t):
                wrong = self.wrong(t, self.memory.walk(t.pmap, t.vpn))
                if wrong:
                    raise self._violation(t, wrong, None, "no INVAL followed the edit", None)

    def _violation(
        self,
        t: Translation,
        invariant: int,
        inval: Happening | None,
        how: str,
        second: Happening | EllipsisType | None = ...,
        verb: str = "still maps",
    ) -> Violation:
        shadow = self.shadow
        walk = self.memory.walk(t.pmap, t.vpn)
        says = "nothing" if walk is None else shadow.owner(walk.object, walk.pindex)
        if invariant == 6:
            says += ", not writable or not executable"
        frame = shadow.frames[t.pfn]
        if inval is None:
            message = f"{how}: "
        else:
            message = f"{inval.name} of event {inval.step} {how}: "
        now = shadow.now() if second is ... else second
        return Violation(
            invariant,
            message + f"{shadow.place(t)} {verb} {shadow.owner(frame.object, frame.pindex)}, "
            f"the page table says {says}",
            check="read-only" if invariant == 6 else "stale-translation",
            accesses=(t.installed if t.installed != now else inval, now),
            frame=t.pfn,
            owners=(shadow.owner(frame.object, frame.pindex), says),
            events=frame.history,
        )


def _more(old: int, new: int) -> bool:
    """Does the new PTE permit more than the old one?"""
    return bool((new & ~old & PTE_RW) | (old & ~new & PTE_NX))
