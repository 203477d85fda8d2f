"""The exact state behind the kernel's back: frames, PTEs, TLBs and maps, rebuilt from events.

Nothing here believes the kernel's reverse map, its PG_MAPPED or its generations: a PTE is known
because its write was seen. That is what makes the checks exact where the kernel is blind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vkprotocol.effects import CURTHREAD
from vkprotocol.events import ALL_VA, NO_OBJECT, QUEUES

from vkemu.oracle.frame import PQ_ACTIVE, PQ_NONE, PTE_FRAME, PTE_V, Frame, Id, Translation
from vkemu.oracle.space import AddressSpace, Extent
from vkemu.oracle.violation import Happening


def current_actor() -> str:
    thread = CURTHREAD[0]
    return "set-up" if thread is None else thread.name


def _within(
    tlb: dict[tuple[Id, int], Translation], pmap: Id, first: int, last: int
) -> Iterator[Translation]:
    for t in list(tlb.values()):
        if t.pmap == pmap and first <= t.vpn < last:
            yield t


class Shadow:
    """Frames, PTEs and TLBs. Handlers are named after the events they take."""

    def __init__(self) -> None:
        self.actor: Callable[[], str] = current_actor
        self.step = 0
        self.event: tuple[str, tuple[Any, ...]] = ("", ())
        self.frames: dict[int, Frame] = {}
        self.ptes: dict[Id, dict[int, Translation]] = {}
        self.tlbs: dict[int, dict[tuple[Id, int], Translation]] = {}
        self.active: dict[Id, int] = {}  # pm_active
        # CPUs whose entries of a pmap may be used: active since they last loaded %cr3.
        self.in_use: dict[Id, int] = {}
        self.spaces: dict[Id, AddressSpace] = {}
        self.resident: dict[tuple[Id, int], Frame] = {}
        self.backing: dict[Id, tuple[Id, int]] = {}  # object -> what it shadows, and where
        self.pmap_names: dict[Id, str] = {}
        self.pmaps: dict[Id, dict[Id, int]] = {}  # proc -> its pmaps, and the ids of their vmspaces

    # Asking.

    def now(self) -> Happening:
        """The event being handled."""
        name, args = self.event
        return Happening(self.step, self.actor(), name, args)

    def frame(self, pfn: int) -> Frame:
        frame = self.frames.get(pfn)
        if frame is None:
            frame = self.frames[pfn] = Frame(pfn)
        return frame

    def owner(self, obj: Id, pindex: int) -> str:
        return "nobody" if obj == NO_OBJECT else f"{obj}[{pindex}]"

    def owner_of(self, frame: Frame) -> str:
        where = f" on {frame.queue}" if frame.queue in ("free", "cache") else ""
        return f"{self.owner(frame.object, frame.pindex)} (generation {frame.gen}){where}"

    def space(self, pmap: Id) -> str:
        return self.pmap_names.get(pmap, f"pmap {pmap}")

    def place(self, t: Translation) -> str:
        return f"{t.vpn << 12:#x} of {self.space(t.pmap)}"

    def extent(self, pmap: Id, vpn: int) -> Extent | None:
        space = self.spaces.get(pmap)
        return None if space is None else space.at(vpn)

    def translations(self, pmap: Id, first: int, last: int) -> Iterator[Translation]:
        """PTEs, then entries of the TLBs in use, of vpns [first, last). A CPU that was
        out of pm_active has to flush before it uses its entries again: those are `parked`, also
        while it is back in pm_active and about to load %cr3."""
        ptes = self.ptes.get(pmap, {})
        if last - first < len(ptes):
            yield from (ptes[vpn] for vpn in range(first, last) if vpn in ptes)
        else:
            yield from (t for vpn, t in list(ptes.items()) if first <= vpn < last)
        mask = self.in_use.get(pmap, 0)
        for cpu, tlb in self.tlbs.items():
            if mask >> cpu & 1:
                yield from _within(tlb, pmap, first, last)

    def parked(self, pmap: Id, first: int, last: int) -> Iterator[Translation]:
        mask = self.in_use.get(pmap, 0)
        for cpu, tlb in self.tlbs.items():
            if not mask >> cpu & 1:
                yield from _within(tlb, pmap, first, last)

    # The machine.

    def page_alloc(self, pfn: int, gen: int, obj: Id, pindex: int) -> None:
        frame = self.frame(pfn)
        frame.gen = gen
        frame.object = obj
        frame.pindex = pindex
        frame.free = False
        frame.queue = "none"
        frame.flags = 0
        frame.dirty = 0
        frame.changed = None
        frame.initialised = False
        frame.remember(self.now())
        if obj != NO_OBJECT:
            self.resident[obj, pindex] = frame

    def page_free(self, pfn: int, gen: int) -> None:
        frame = self.frame(pfn)
        frame.freed = self.now()
        frame.remember(frame.freed)
        frame.previous = (frame.object, frame.pindex)
        if self.resident.get(frame.previous) is frame:
            del self.resident[frame.previous]
        frame.object = NO_OBJECT
        frame.pindex = -1
        frame.free = True

    def page_queue(self, pfn: int, old: int, new: int) -> None:
        frame = self.frame(pfn)
        frame.queue = QUEUES[new]
        if new != PQ_NONE and new != PQ_ACTIVE:  # it comes and goes with every fault
            frame.remember(self.now())

    def page_flags(self, pfn: int, on: int, off: int) -> None:
        frame = self.frame(pfn)
        frame.flags = frame.flags & ~off | on
        frame.remember(self.now())

    def page_dirty(self, pfn: int, value: int) -> None:
        frame = self.frame(pfn)
        frame.dirty = value
        frame.remember(self.now())

    def pte_write(self, pmap: Id, va: int, old: int, new: int, why: str) -> None:
        vpn = va >> 12
        ptes = self.ptes.setdefault(pmap, {})
        before = ptes.get(vpn)
        if not new & PTE_V:
            if before is not None:
                del ptes[vpn]
                frame = self.frame(before.pfn)
                frame.ptes.pop((pmap, vpn), None)
                frame.remember(self.now())
            return
        pfn = (new & PTE_FRAME) >> 12
        if before is not None and before.pfn == pfn:
            # The same mapping: A and M, or permissions. Its generation stays what it was.
            before.bits = new & ~PTE_FRAME
            if why != "walk":
                self.frame(pfn).remember(self.now())
            return
        if before is not None:
            self.frame(before.pfn).ptes.pop((pmap, vpn), None)
        frame = self.frame(pfn)
        now = self.now()
        t = Translation(pmap, vpn, frame, new & ~PTE_FRAME, frame.gen, now)
        ptes[vpn] = t
        frame.ptes[pmap, vpn] = t
        frame.remember(now)

    def tlb_fill(self, cpu: int, pmap: Id, va: int, pfn: int, bits: int) -> None:
        vpn = va >> 12
        pte = self.ptes.get(pmap, {}).get(vpn)
        if pte is not None and pte.pfn == pfn:
            t = Translation(pmap, vpn, self.frame(pfn), bits, pte.gen, pte.installed)
            t.owner = pte.owner
        else:
            frame = self.frame(pfn)
            t = Translation(pmap, vpn, frame, bits, frame.gen, self.now())
        self.tlbs.setdefault(cpu, {})[pmap, vpn] = t

    def tlb_flush(self, cpu: int, va: int) -> None:
        tlb = self.tlbs.get(cpu)
        if not tlb:
            return
        if va == ALL_VA:
            tlb.clear()
            return
        vpn = va >> 12
        for key in [key for key in tlb if key[1] == vpn]:
            del tlb[key]

    def cpu_active(self, pmap: Id, mask: int) -> None:
        self.active[pmap] = mask
        self.in_use[pmap] = self.in_use.get(pmap, 0) & mask

    def cpu_pmap(self, cpu: int, pmap: Id) -> None:
        self.in_use[pmap] = self.in_use.get(pmap, 0) | 1 << cpu

    def cached(self, cpu: int, pmap: Id, va: int) -> Translation | None:
        """The TLB entry an access goes through. Entries of another pmap for the same page serve
        too: they are what a CPU that did not flush would use."""
        tlb = self.tlbs.get(cpu)
        if tlb is None:
            return None
        t = tlb.get((pmap, va >> 12))
        if t is None:
            vpn = va >> 12
            t = next((t for key, t in tlb.items() if key[1] == vpn), None)
        return t

    # Maps.

    def map_insert(
        self, vm_map: Id, start: int, end: int, maptype: str, obj: Id, offset: int
    ) -> None:
        space = self.spaces.setdefault(vm_map, AddressSpace())
        space.cut(start >> 12, end >> 12)
        space.add(Extent(start >> 12, end >> 12, maptype, obj, offset))

    def map_remove(self, vm_map: Id, start: int, end: int) -> None:
        space = self.spaces.get(vm_map)
        if space is not None:
            space.cut(start >> 12, end >> 12)

    def map_object(self, vm_map: Id, start: int, end: int, obj: Id, offset: int) -> None:
        """The entry shows another object. The walk index of a VPAGETABLE entry goes by its offset,
        which a shadow starts anew at 0 (vm_map_entry_shadow)."""
        space = self.spaces.setdefault(vm_map, AddressSpace())
        for extent in space.cut(start >> 12, end >> 12):
            at = offset + extent.start - (start >> 12)
            space.add(Extent(extent.start, extent.end, extent.maptype, obj, at, extent.pde))

    def object_shadow(self, obj: Id, backing: Id, offset: int) -> None:
        self.backing[obj] = (backing, offset)

    def proc_create(self, proc: Id, pmap: Id) -> None:
        self.pmap_names[pmap] = f"process {proc}"
        self.pmaps.setdefault(proc, {})[pmap] = -1

    def vmspace_create(self, proc: Id, ident: int, pmap: Id) -> None:
        self.pmap_names[pmap] = f"vmspace {ident:#x} of process {proc}"
        self.pmaps.setdefault(proc, {})[pmap] = ident

    def object_destroy(self, obj: Id) -> None:
        self.backing.pop(obj, None)

    def forget(self, proc: Id) -> None:
        for pmap in self.pmaps.pop(proc, {}):
            for table in (self.ptes, self.active, self.in_use, self.spaces, self.pmap_names):
                table.pop(pmap, None)

    def vmspace(self, proc: Id, ident: int) -> Id | None:
        """The latest pmap of that name."""
        found = [pmap for pmap, name in self.pmaps.get(proc, {}).items() if name == ident]
        return found[-1] if found else None

    def images(self, proc: Id) -> list[Id]:
        """The memory images of a vkernel: what its VPAGETABLE mappings show."""
        found = {
            extent.object: None
            for pmap in self.pmaps.get(proc, {})
            if pmap in self.spaces
            for extent in self.spaces[pmap].extents
            if extent.maptype == "vpagetable"
        }
        return list(found)
