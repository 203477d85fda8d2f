"""Invariant 12: what is counted, listed and flagged is what there is.

At the end, when every thread is done or waits for something to do, everything that the host keeps
count of is counted again from what it counts; in a run also whenever nobody is in the host kernel
(quiet.py). In between the counts are in somebody's hands; what a lost count leads to then is for
the other checks.

It looks at the kernel itself, which events do not describe: so a run and a search have books, and a
recorded log has none.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from vkprotocol.effects import CURTHREAD
from vkprotocol.messages import MEMIMAGE_FD
from vkprotocol.param import PAGE_SIZE, atop

from vkemu.books.content import check_clean
from vkemu.books.guest import check_guest
from vkemu.books.rmap import check_rmap
from vkemu.oracle.reference import Reference
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Happening, Violation
from vkguest.kernel import Vkernel
from vkhost.kernel import Kernel
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_M, PTE_MANAGED, PTE_RW, PTE_W, pte_pfn
from vkhost.pc64.pmap_pte import Pte
from vkhost.rmap.extent_scan import ExtentScan
from vkhost.rmap.removed import Removed
from vkhost.rmap.vptmapped import Vptmapped
from vkhost.rmap.wired import Wired
from vkhost.vm.vm import MAP_ENTRY_NEEDS_COPY, VM_MAPTYPE_NORMAL, VM_PROT_WRITE
from vkhost.vm.vm_map import VmMap, VmMapBacking, VmMapEntry, vm_map_lookup_entry
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_page import (
    PBUSY_LOCKED,
    PBUSY_MASK,
    PG_MAPPED,
    PG_SWAPPED,
    PG_UNQUEUED,
    PG_WRITEABLE,
    VmPage,
)
from vkhost.vm.vm_page_queue import (
    PQ_CACHE,
    PQ_FREE,
    PQ_HOLD,
    PQ_NAMES,
    PQ_NONE,
    PageQueue,
    QueueLink,
)

Mapping = tuple[Pmap, Pte]
BLIND: Final = (ExtentScan, Removed, Vptmapped, Wired)
UNUSED: Final = (PQ_FREE, PQ_CACHE)


class Books:
    """`maps`: address spaces that no process has; `held`: references that a test has to objects, by
    their id; `guests`: that run here, whose programs `reference` knows."""

    def __init__(
        self,
        kernel: Kernel,
        shadow: Shadow | None = None,
        maps: Iterable[VmMap] = (),
        held: dict[int | str, int] | None = None,
        guests: Sequence[Vkernel] = (),
        reference: Reference | None = None,
    ) -> None:
        self.kernel = kernel
        self.shadow = shadow
        self.maps = tuple(maps)
        self.held = held or {}
        self.guests = guests
        self.reference = reference

    def check(self) -> None:
        """Raises Violation for the first account that does not agree."""
        self.check_host()
        for guest in self.guests:
            self.check_guest(guest)

    def check_guest(self, guest: Vkernel) -> None:
        with nobody():
            check_guest(guest, self.image(guest), self.reference)

    def check_host(self) -> None:
        with nobody():
            self._ptes: dict[int, list[Mapping]] = {}
            self._of: dict[Pmap, list[Pte]] = {}
            self._check_pmaps()
            self._check_queues()
            for m in self.kernel.pages.values():
                self._check_page(m)
            self._check_objects()
            self._check_swap()
            check_rmap(self)
            check_clean(self.kernel.pages.values(), self._modified)
            self._check_locked()

    def image(self, guest: Vkernel) -> Callable[[int], Sequence[int]]:
        """The words of a page of the guest's memory, wherever that is now."""
        proc = next(proc for proc in self.kernel.procs if proc.pid == guest.proc)
        if MEMIMAGE_FD not in proc.files:
            return lambda frame: ()  # it has ended, and all of it is gone
        vnode = proc.files[MEMIMAGE_FD].vnode
        memq = {} if vnode.object is None else vnode.object.memq

        def words(frame: int) -> Sequence[int]:
            m = memq.get(frame)
            if m is not None and m.valid:
                return m.frame.words
            return array("Q", vnode.pread(frame * PAGE_SIZE, PAGE_SIZE))

        return words

    def _modified(self, m: VmPage) -> bool:
        return any(pte.state & PTE_M for _, pte in self.mappings(m))

    def mappings(self, m: VmPage) -> list[Mapping]:
        return self._ptes.get(m.pfn, [])

    # Page tables.

    def _check_pmaps(self) -> None:
        for proc in self.kernel.procs:
            if len(proc.lwps) > 1 and not proc.zombie:
                pmap = proc.p_vmspace.pmap
                self.agree("that threads share {}", pmap.multi, True, pmap)
        for pmap in self.kernel.pmaps.values():
            valid = list(_valid(pmap))
            directory = pmap.directory
            self.agree("resident_count of {}", directory.resident_count, len(valid), pmap)
            wired = sum(bool(pte.state & PTE_W) for pte in valid)
            self.agree("wired_count of {}", pmap.wired_count, wired, pmap)
            self._of[pmap] = valid
            for pte in valid:
                self._ptes.setdefault(pte_pfn(pte.state), []).append((pmap, pte))

    # Queues.

    def _check_queues(self) -> None:
        queues, stats = self.kernel.queues, self.kernel.vmstats
        total: Counter[int] = Counter()
        listed: set[int] = set()
        for (kind, color), queue in queues._queues.items():
            pages = [link for link in _links(queue) if isinstance(link, VmPage)]
            count = len(pages) + len(queue._untouched)
            self.agree("pages counted on {}[{}]", queue.lcnt, count, PQ_NAMES[kind], color)
            total[kind] += count
            for m in pages:
                if m.queue != kind or m.pfn in listed:
                    self.agree("queue of {}", PQ_NAMES[m.queue], PQ_NAMES[kind], m)
                    self.agree("{} is twice on a queue", True, False, m)
                listed.add(m.pfn)
        for kind, name in enumerate(PQ_NAMES):
            if kind != PQ_NONE:
                self.agree("v_{}_count", stats.queue_count[kind].state, total[kind], name)
        for m in self.kernel.pages.values():
            if (m.pfn in listed) is not (m.queue != PQ_NONE):
                self.agree("{} is on a queue", m.pfn in listed, m.queue != PQ_NONE, m)
        wired = sum(m.wire_count.state > 0 for m in self.kernel.pages.values())
        self.agree("v_wire_count", stats.v_wire_count.state, wired)

    # Pages.

    def _check_page(self, m: VmPage) -> None:
        flags, mappings = m.flags.state, self.mappings(m)
        if not mappings and m.object is None and m.queue == PQ_FREE and _blank(m):
            return  # most of them
        self.agree("{} is busy", m.busy_count.state & (PBUSY_LOCKED | PBUSY_MASK), 0, m)
        self.agree("interlock_count of {}", m.interlock_count.state, 0, m)
        if m.queue == PQ_HOLD:
            self.agree("{} is held", m.hold_count.state > 0, True, m)
        if m.queue in UNUSED:
            of = m, PQ_NAMES[m.queue]
            self.agree("PTEs of {}, on {}", len(mappings), 0, *of)
            self.agree("wire_count of {}, on {}", m.wire_count.state, 0, *of)
            self.agree("hold_count of {}, on {}", m.hold_count.state, 0, *of)
            self.agree("dirt of {}, on {}", m.dirty.state, 0, *of)
            self.agree("PG_MAPPED of {}, on {}", flags & PG_MAPPED, 0, *of)
        if m.queue == PQ_FREE:
            self.agree("object of {}, which is free", m.object, None, m)
        elif m.object is not None:
            self.agree("{} is in its object", m.object.memq.get(m.pindex) is m, True, m)
            if not m.wire_count.state and not flags & PG_UNQUEUED:  # or no daemon ever finds it
                self.agree("{}, of an object, is on a queue", m.queue != PQ_NONE, True, m)
        # A blind map clears the flag and leaves PTEs: what comes of it is lost dirt (W12).
        asked = type(self.kernel.rmap) not in BLIND
        writable = asked and any(pte.state & PTE_RW for _, pte in mappings)
        if any(pte.state & PTE_MANAGED for _, pte in mappings):
            self.agree("PG_MAPPED of {}, which is mapped", bool(flags & PG_MAPPED), True, m)
        if writable and mappings[0][1].state & PTE_MANAGED:
            self.agree("PG_WRITEABLE of {}, mapped RW", bool(flags & PG_WRITEABLE), True, m)

    # Maps and objects.

    def vm_maps(self) -> Iterator[VmMap]:
        seen: set[int] = set()
        for vm_map in (*_process_maps(self.kernel), *self.maps):
            if id(vm_map) not in seen:
                seen.add(id(vm_map))
                yield vm_map

    def _check_objects(self) -> None:
        refs: Counter[int | str] = Counter(self.held)
        backings: dict[int | str, list[VmMapBacking]] = {}
        for vm_map in self.vm_maps():
            self._check_map(vm_map)
            for entry in vm_map.entries:
                for ba in entry.backings():
                    if ba.object is not None:
                        refs[ba.object.id] += 1
                        backings.setdefault(ba.object.id, []).append(ba)
        for obj in self.kernel.objects.values():
            self.agree("ref_count of {}", obj.ref_count.state, refs[obj.id], obj)
            self._check_object(obj, backings.get(obj.id, []))

    def _check_map(self, vm_map: VmMap) -> None:
        pmap = vm_map.pmap
        size = sum(entry.end - entry.start for entry in vm_map.entries)
        self.agree("size of the map of {}", vm_map.size, size, pmap)
        for a, b in pairwise(vm_map.entries):
            self.agree("{} of {} ends before {}", a.end <= b.start, True, a, pmap, b)
        for entry in vm_map.entries:
            extents = {(ba.start, ba.end) for ba in entry.backings()}
            self.agree("extents of {} of {}", extents, {(entry.start, entry.end)}, entry, pmap)
        self.agree("interlocks of {}", vm_map.ilock_base, None, pmap)
        for pte in self._of.get(pmap, ()):
            self._check_mapped(vm_map, pte)

    def _check_mapped(self, vm_map: VmMap, pte: Pte) -> None:
        """What is mapped by arithmetic is what a fault would find now, and writable only what may
        be written. What VPTEs lead to is judged by the oracle, step by step."""
        va, of = pte.va, (pte.va, vm_map.pmap)
        entry = next((e for e in vm_map.entries if e.ba.start <= va < e.ba.end), None)
        if entry is None:
            self.agree("{:#x} of {} is mapped, and in an entry", False, True, *of)
        elif entry.maptype == VM_MAPTYPE_NORMAL:
            there, ba = found_at(entry, va), entry.ba
            pfn = None if there is None else there.pfn
            self.agree("{:#x} of {} maps the page of", pte_pfn(pte.state), pfn, *of)
            if pte.state & PTE_RW and there is not None:
                right = entry.protection & VM_PROT_WRITE and there.object is ba.object
                right = bool(right and not entry.eflags & MAP_ENTRY_NEEDS_COPY)
                self.agree("{:#x} of {} is writable, and may be", right, True, *of)

    def _check_locked(self) -> None:
        """What mlock has locked is in memory, and stays there while its process does."""
        processes = {} if self.reference is None else self.reference.processes
        for proc in self.kernel.procs:
            leaves = proc.zombie or proc.killed.state
            program = None if leaves else processes.get(str(proc.pid))
            for region in () if program is None else program.regions:
                for va in range(region.start, region.end, PAGE_SIZE) if region.locked else ():
                    if program is None or program.doubted(va):
                        continue
                    entry = vm_map_lookup_entry(proc.p_vmspace.vm_map, va)
                    m = None if entry is None else found_at(entry, va)
                    wired = m is not None and m.wire_count.state > 0
                    self.agree("{:#x} of {} is locked, and wired", wired, True, va, proc.name)

    def _check_object(self, obj: VmObject, backings: list[VmMapBacking]) -> None:
        self.agree("resident_page_count of {}", obj.resident_page_count, len(obj.memq), obj)
        self.agree("paging_in_progress of {}", obj.paging_in_progress.state, 0, obj)
        listed, there = Counter(map(id, obj.backing_list)), Counter(map(id, backings))
        self.agree("backings of {}", sorted(listed.items()), sorted(there.items()), obj)
        for pindex, m in obj.memq.items():
            self.agree("object of {}", (m.object, m.pindex), (obj, pindex), m)
            swapped = bool(m.flags.state & PG_SWAPPED)
            if m.valid:
                self.agree("PG_SWAPPED of {}", swapped, pindex in obj.swblocks, m)

    def _check_swap(self) -> None:
        swap = self.kernel.swap
        used = [block for obj in self.kernel.objects.values() for block in obj.swblocks.values()]
        self.agree(
            "swap blocks, used and free", sorted([*used, *swap._unused]), [*range(swap.pages)]
        )
        self.agree("vm_swap_size", swap.vm_swap_size.state, len(swap._unused))

    def agree(self, what: str, says: Any, there: Any, *of: Any) -> None:
        """`what` with `of` put in; only put together when it is said."""
        if says == there:
            return
        text = f"{what.format(*of)}: {says}, counted {there}"
        raise Violation(12, text, check="books", accesses=(None, self.now()))

    def now(self) -> Happening | None:
        return None if self.shadow is None else self.shadow.now()


def found_at(entry: VmMapEntry, va: int) -> VmPage | None:
    """The page in memory that a fault by arithmetic finds."""
    there, at = None, entry.ba
    below: VmMapBacking | None = at
    while below is not None and there is None:
        if below.object is not None:
            there = below.object.memq.get(atop(below.offset + va - at.start))
        below = below.backing_ba
    return there


def _blank(m: VmPage) -> bool:
    """Nothing is left of whoever had the page."""
    words = (m.busy_count, m.interlock_count, m.wire_count, m.hold_count, m.dirty)
    return not any(word.state for word in words) and not m.flags.state & PG_MAPPED


def _links(queue: PageQueue) -> Iterator[QueueLink]:
    """Those that have been made: to look at one makes it."""
    link = queue.head
    while link is not None:
        yield link
        link = link.next


def _valid(pmap: Pmap) -> Iterator[Pte]:
    for table in pmap.directory.tables.values():
        for pte in table.ptes.values():
            if pte.state:
                yield pte


def _process_maps(kernel: Kernel) -> Iterator[VmMap]:
    for proc in kernel.procs:
        if proc.zombie:
            continue
        yield proc.p_vmspace.vm_map
        vkp = proc.p_vkernel.state
        if vkp is not None:
            for ve in vkp.root.values():
                yield ve.vmspace.vm_map
    stages = getattr(kernel.rmap, "_stages", None)
    if stages is not None:
        for stage in stages.of.values():
            yield stage.vm_map


@contextmanager
def nobody() -> Iterator[None]:
    """Locks are not asked for: nobody runs."""
    before, CURTHREAD[0] = CURTHREAD[0], None
    try:
        yield
    finally:
        CURTHREAD[0] = before
