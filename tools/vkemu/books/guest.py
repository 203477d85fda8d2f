"""The books of a guest kernel at rest: each frame, swap slot and page of KVA, each mapping and each
reference is what somebody has, or free. When the last process has ended, little is left: the root
tables of cached vmspaces, texts, files, pipes that nobody closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vkprotocol.mman import PROT_WRITE
from vkprotocol.param import KERNEL_KVA_START, PAGE_SHIFT, PAGE_SIZE, SEG_SHIFT
from vkprotocol.vpte import (
    VPTE_A,
    VPTE_M,
    VPTE_MANAGED,
    VPTE_PS,
    VPTE_RW,
    VPTE_U,
    VPTE_V,
    VPTE_WIRED,
    vpte_frame,
)

from vkemu.books.content import Image, Words, check_programs, resident
from vkemu.oracle.reference import Reference
from vkemu.oracle.violation import Violation
from vkguest.kern.param import KPT_FRAME, NUPDE
from vkguest.kern.pipebuf import PipeBuf
from vkguest.kernel import UP, Vkernel
from vkguest.vkernel64.pmap import Pmap
from vkguest.vm.vm_kern import kernel_pte
from vkguest.vm.vm_map import VmMapEntry, vm_map_lookup_entry
from vkguest.vm.vm_object import VmObject
from vkguest.vm.vm_page import PG_MAPPED, PG_WRITEABLE, PQ_FREE, VmPage
from vkguest.vm.vmspace import Vmspace


def check_guest(
    guest: Vkernel, words: Callable[[int], Words], reference: Reference | None = None
) -> None:
    """Violation for the first account that does not agree. A guest that never came up, or that the
    host has ended, leaves whatever it was doing."""
    if guest.booted.value == UP and guest.killed is None:
        books = GuestBooks(guest, Image(words))
        books.check()
        if reference is not None:
            check_programs(guest, books.image, reference)


class GuestBooks:
    """`refs`: how often each object is referred to."""

    def __init__(self, guest: Vkernel, image: Image) -> None:
        self.guest = guest
        self.image = image
        self.writable: set[tuple[int, int]] = set()  # (pmap, va)
        spaces = {id(p.vmspace): p.vmspace for p in guest.allproc if not p.zombie}
        self.vmspaces = [*spaces.values()]
        maps = [*(vm.vm_map for vm in self.vmspaces), guest.kernel_map]
        self.entries = [e for vm_map in maps for e in vm_map.entries]
        self.refs: Counter[VmObject] = Counter(_refers(guest, self.entries))

    def check(self) -> None:
        guest, zone = self.guest, self.guest.vmspaces
        if guest.exited.value == len(guest.cpus) and not guest.failed:
            programs = range(1, len(guest.programs) + 1)
            self._agree("programs that have ended", guest.results.keys() >= {*programs}, True)
        self._agree("vmspaces, used and cached", len(self.vmspaces) + len(zone.free), zone.made)
        for vm in zone.free:
            self._agree(f"entries of the map of pmap {vm.pmap.id:#x}", len(vm.vm_map.entries), 0)
        pmaps = [vm.pmap for vm in (*self.vmspaces, *zone.free)]
        for pmap in (*pmaps, guest.kernel_pmap):
            self._check_pmap(pmap)
        for vm in self.vmspaces:
            for va in vm.pmap.pvs:
                self._check_mapped(vm, va)
        for obj, refs in self.refs.items():
            self._agree(f"references to {obj.name}", obj.ref_count, refs)
            for pindex, m in obj.pages.items():
                self._agree(f"object of {m}", (m.object, m.pindex), (obj, pindex))
        self._check_frames()
        slots = [slot for obj in self.refs for slot in obj.swap.values()]
        end = max(guest.vm_page_queues.pages) + 1
        there = Counter(range(end, guest.memory_pages))
        self._agree("swap slots", Counter([*guest.swap.free, *slots]), there)
        entered = dict(self._entered(pmaps))
        if self.image.words(KPT_FRAME):  # not gone with the guest
            there_too = dict(self._kernel_vptes(managed=False))
            self._agree("KVA entered by pmap_kenter", there_too, entered)
        kva = len(entered) + sum(e.end - e.start >> PAGE_SHIFT for e in guest.kernel_map.entries)
        self._agree("pages of KVA in use", sum(guest.kva.used), kva)

    # Page tables.

    def _check_pmap(self, pmap: Pmap) -> None:
        where = f"of pmap {pmap.id:#x}"
        vptes = dict(self._leaves(pmap))
        self._agree(f"pv_entries {where}", sorted(pmap.pvs), sorted(vptes))
        self._agree(f"resident_count {where}", pmap.resident_count, len(vptes))
        wired = sum(bool(vpte & VPTE_WIRED) for vpte in vptes.values())
        self._agree(f"wired_count {where}", pmap.wired_count, wired)
        for va, vpte in vptes.items():
            m = self.guest.vm_page_queues.pages[vpte_frame(vpte)]
            self._agree(f"{va:#x} {where} is listed with {m}", pmap.pvs[va] in m.pv_list, True)
            if vpte & VPTE_M:
                self.image.modified.add(m.frame)
            if vpte & VPTE_RW:
                self._agree(f"PG_WRITEABLE of {m}", bool(m.flags & PG_WRITEABLE), True)
                self.writable.add((pmap.id, va))

    def _check_mapped(self, vm: Vmspace, va: int) -> None:
        """What is mapped is what a fault would find now, and nobody writes what is to be copied."""
        where = f"{va:#x} of pmap {vm.pmap.id:#x}"
        entry = vm_map_lookup_entry(vm.vm_map, va)
        self._agree(f"{where} is mapped, and in an entry", entry is not None, True)
        assert entry is not None
        there = resident(entry.object, entry.pindex(va))
        mine = there is not None and vm.pmap.pvs[va] in there.pv_list
        self._agree(f"{where} maps the page of its entry", mine, True)
        if (vm.pmap.id, va) in self.writable:
            right = bool(entry.protection & PROT_WRITE) and not entry.needs_copy
            right &= there is not None and there.object is entry.object
            self._agree(f"{where} is writable, and may be", right, True)

    def _leaves(self, pmap: Pmap) -> Iterator[tuple[int, int]]:
        """(va, VPTE) of all that is valid; each table is held by what is in it. The kernel's one
        has other VPTEs too, of frames that pmap_kenter was given."""
        if pmap is self.guest.kernel_pmap:
            yield from self._kernel_vptes(managed=True)
        for ptepindex, m in pmap.pt_pages.items():
            there = [(i, vpte) for i, vpte in enumerate(self.image.words(m.frame)) if vpte]
            self._agree(f"hold_count of {m}, a table of {pmap.id:#x}", m.hold_count, len(there))
            if ptepindex < NUPDE:
                for i, vpte in there:
                    yield (ptepindex << SEG_SHIFT) + (i << PAGE_SHIFT), vpte
            for i, vpte in there:
                if ptepindex >= NUPDE and vpte & VPTE_PS:  # pmap_enter_large
                    where = f"entry {i} of {m}, of a large page"
                    bits = VPTE_V | VPTE_U | VPTE_WIRED
                    self._agree(f"{where}, is wired", vpte & bits, bits)

    def _kernel_vptes(self, *, managed: bool) -> Iterator[tuple[int, int]]:
        for i, vpte in enumerate(self.image.words(KPT_FRAME)):
            if vpte & VPTE_V and bool(vpte & VPTE_MANAGED) is managed:
                yield KERNEL_KVA_START + (i << PAGE_SHIFT), vpte & ~(VPTE_A | VPTE_M)

    def _entered(self, pmaps: Iterable[Pmap]) -> Iterator[tuple[int, int]]:
        """By pmap_kenter and pmap_qenter: roots, and the buffers of pipes."""
        for pmap in pmaps:
            if pmap.pm_pdirm is not None:
                yield pmap.pm_pml4, kernel_pte(pmap.pm_pdirm.frame)
        for buf in self._pipe_bufs():
            for n, m in enumerate(buf.frames):
                yield buf.kva + n * PAGE_SIZE, kernel_pte(m.frame)

    # Frames.

    def _check_frames(self) -> None:
        vpq = self.guest.vm_page_queues
        wires = {m.frame: wired for m, wired in self._kept()}
        tables = {m.frame for vm in self.vmspaces for m in vm.pmap.pt_pages.values()}
        pmaps = [*(vm.pmap for vm in self.vmspaces), self.guest.kernel_pmap]
        mapped = Counter(pv for pmap in pmaps for pv in pmap.pvs.values())
        for frame, m in vpq.pages.items():
            self._agree(f"{m} is free", m.queue == PQ_FREE, frame not in wires)
            self._agree(f"wire_count of {m}", m.wire_count, wires.get(frame, 0))
            self._agree(f"{m} is busy", m.busy.state, None)
            if frame not in tables:
                self._agree(f"hold_count of {m}", m.hold_count, 0)
            if frame not in wires:
                self._agree(f"object of {m}, which is free", m.object, None)
            elif m.object is not None and not m.wire_count:  # or no daemon ever finds it
                self._agree(f"{m}, of an object, is on a queue", m.queue in vpq.queues, True)
            mapped.subtract(m.pv_list)
            self._agree(f"PG_MAPPED of {m}", bool(m.flags & PG_MAPPED), bool(m.pv_list))
            if not m.pv_list:
                self._agree(f"PG_WRITEABLE of {m}, not mapped", bool(m.flags & PG_WRITEABLE), False)
        self._agree("mappings on no page's list, or on two", any(mapped.values()), False)
        there = Counter(frame for frame in vpq.pages if frame not in wires)
        self._agree("free frames", Counter(vpq.free), there)
        for name, queue in vpq.queues.items():
            there_too = sorted(m.frame for m in vpq.pages.values() if m.queue == name)
            self._agree(f"pages on {name}", sorted(queue), there_too)

    def _kept(self) -> Iterator[tuple[VmPage, int]]:
        """What is not free, and how often it is wired."""
        stacks = {lp.kstack for proc in self.guest.allproc for lp in proc.lwps.values()}
        wired = {e.object for e in self.entries if e.large or e.start in stacks}
        for vm in (*self.vmspaces, *self.guest.vmspaces.free):
            if vm.pmap.pm_pdirm is not None:
                yield vm.pmap.pm_pdirm, 1
            for m in vm.pmap.pt_pages.values():
                yield m, 1
        for buf in self._pipe_bufs():
            for m in buf.frames:
                yield m, 1
        for proc in self.guest.allproc:
            for lp in proc.lwps.values():
                if lp.md is not None and lp.md.savefpu is not None:
                    yield lp.md.savefpu, 1
        for obj in self.refs:
            for m in obj.pages.values():
                yield m, int(obj in wired)

    def _pipe_bufs(self) -> Iterator[PipeBuf]:
        """Of pipes of words; and of bytes, which the descriptors of machine code lead to."""
        tables = [proc.md.files for proc in self.guest.allproc if proc.md is not None]
        ends = [file.pipe for table in tables for file in table.values()]
        yield from (pipe.buf for pipe in self.guest.pipes.values())
        yield from {id(pipe): pipe.buf for pipe in ends if pipe is not None}.values()

    def _agree(self, what: str, says: Any, there: Any) -> None:
        if says != there:
            text = f"{self.guest.name}: {what}: {says}, counted {there}"
            raise Violation(12, text, check="books")


def _refers(guest: Vkernel, entries: Iterable[VmMapEntry]) -> Iterator[VmObject]:
    """Each object once for each that refers to it: an entry, a shadow, a text, a file, a number."""
    seen: set[int] = set()
    firsts = [*(entry.object for entry in entries), *guest.shm.values()]
    for obj in [*firsts, *guest.text_objects.values(), *(v.object for v in guest.disk.vnodes())]:
        yield obj
        below: VmObject | None = obj
        while below is not None and id(below) not in seen:
            seen.add(id(below))
            below = below.backing
            if below is not None:
                yield below
