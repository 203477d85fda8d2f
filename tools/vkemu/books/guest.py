"""The books of a guest kernel, when its last process has ended: all it had is free again.

What is left then is what it keeps on purpose: root tables of cached vmspaces, texts, files, pipes
that nobody closed. Each frame, swap slot and page of KVA is one of these or free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from vkemu.oracle.violation import Violation
from vkguest.kernel import UP, Vkernel
from vkguest.vm.vm_object import VmObject
from vkguest.vm.vm_page import PG_MAPPED, PG_WRITEABLE, PQ_FREE, VmPage


def check_guest(guest: Vkernel) -> None:
    """Violation for the first account that does not agree. A guest that never came up, or that the
    host has ended, leaves whatever it was doing."""
    if guest.booted.value != UP or guest.killed is not None or guest.allproc:
        return
    _check_frames(guest)
    _check_vmspaces(guest)
    vpq = guest.vm_page_queues
    for name, queue in vpq.queues.items():
        there = sorted(m.frame for m in vpq.pages.values() if m.queue == name)
        _agree(guest, f"pages on {name}", sorted(queue), there)
    slots = [slot for _, obj in _objects(guest) for slot in obj.swap.values()]
    _agree(guest, "swap slots", Counter([*guest.swap.free, *slots]), Counter(_slots(guest)))
    roots = sum(vm.pmap.pm_pdirm is not None for vm in guest.vmspaces.free)
    kva = roots + sum(len(pipe.frames) for pipe in guest.pipes.values())
    _agree(guest, "pages of KVA in use", sum(guest.kva.used), kva)


def _slots(guest: Vkernel) -> range:
    return range(max(guest.vm_page_queues.pages) + 1, guest.memory_pages)


def _check_frames(guest: Vkernel) -> None:
    vpq = guest.vm_page_queues
    kept = {m.frame: wires for m, wires in _kept(guest)}
    for frame, m in vpq.pages.items():
        _agree(guest, f"{m} is free", m.queue == PQ_FREE, frame not in kept)
        _agree(guest, f"wire_count of {m}", m.wire_count, kept.get(frame, 0))
        _agree(guest, f"hold_count of {m}", m.hold_count, 0)
        _agree(guest, f"{m} is busy", m.busy.state, None)
        _agree(guest, f"mappings of {m}", len(m.pv_list), 0)
        _agree(guest, f"flags of {m}, not mapped", m.flags & (PG_MAPPED | PG_WRITEABLE), 0)
    there = Counter(frame for frame in vpq.pages if frame not in kept)
    _agree(guest, "free frames", Counter(vpq.free), there)


def _kept(guest: Vkernel) -> Iterator[tuple[VmPage, int]]:
    """What is not free, and how often it is wired."""
    for vm in guest.vmspaces.free:
        if vm.pmap.pm_pdirm is not None:
            yield vm.pmap.pm_pdirm, 1
    for pipe in guest.pipes.values():
        for m in pipe.frames:
            yield m, 1
    for _, obj in _objects(guest):
        for m in obj.pages.values():
            yield m, 0


def _objects(guest: Vkernel) -> Iterator[tuple[str, VmObject]]:
    """Texts, and the files of the disk."""
    for program, obj in guest.text_objects.items():
        yield f"the text of {program.name}", obj
    for vnode in guest.disk.vnodes():
        yield vnode.name, vnode.object


def _check_vmspaces(guest: Vkernel) -> None:
    zone = guest.vmspaces
    _agree(guest, "cached vmspaces", len(zone.free), zone.made)
    for vm in zone.free:
        pmap = vm.pmap
        where = f"of pmap {pmap.id:#x}"
        _agree(guest, f"resident_count {where}", pmap.resident_count, 0)
        _agree(guest, f"wired_count {where}", pmap.wired_count, 0)
        _agree(guest, f"pv_entries {where}", len(pmap.pvs), 0)
        _agree(guest, f"page tables {where}", len(pmap.pt_pages), 0)
        _agree(guest, f"entries of the map {where}", len(vm.vm_map.entries), 0)
    for name, obj in _objects(guest):
        _agree(guest, f"references to {name}", obj.ref_count, 1)


def _agree(guest: Vkernel, what: str, says: Any, there: Any) -> None:
    if says != there:
        raise Violation(12, f"{guest.name}: {what}: {says}, counted {there}", check="books")
