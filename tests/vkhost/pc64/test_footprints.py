"""The contract of a step: what an effect does not announce as written has not changed.

Everything two threads may touch is compared before and after each step of random runs of the whole
machine. (What an effect does not announce as *read* shows in exploration, where a reduced search
must reach what a full one reaches.)
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from vkprotocol.effects import Effect, Shared

from tests.vkhost.machine import ENTRY, Machine
from vkhost.pc64.cpu import Fault
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_protect import pmap_protect
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.pc64.pmap_switch import swtch_in, swtch_out
from vkhost.vm.vm import KERN_SUCCESS, VM_PROT_ALL, VM_PROT_NONE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc, vm_page_free
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_cache import vm_page_try_to_cache
from vkhost.vm.vm_page_dirty import vm_page_protect
from vkhost.vm.vm_page_lru import vm_page_activate, vm_page_deactivate
from vkhost.vm.vm_page_queue import PQ_NAMES

PAGES = 5
BASE = 0x100000


def shared_objects(machine: Machine, obj: VmObject) -> Iterator[Shared]:
    kernel = machine.kernel
    for m in map(kernel.pages.__getitem__, range(PAGES)):
        yield from (m.flags, m.busy_count, m.wire_count, m.hold_count, m.dirty, m.interlock_count)
        if m.pv_list is not None:
            yield m.pv_list
    for pmap in kernel.pmaps.values():
        yield pmap.pm_active
        yield pmap.directory
        for table in pmap.directory.tables.values():
            yield from (table, table.lock)
            for pte in table.ptes.values():
                yield pte
                yield pmap.placemark(pte.vpn)
    for cpu in kernel.cpus:
        yield from (cpu.tlb.root, cpu.ipi, cpu.faults, cpu.fault_results)
        for space in cpu.tlb.spaces.values():
            yield from space.values()
    yield from kernel.vmstats.queue_count
    for kind in range(len(PQ_NAMES)):
        for color in range(kernel.config.pqcolors):
            yield kernel.queues.of(kind, color)
    yield from (obj.token, obj.backing_lk, obj.ref_count, obj.paging_in_progress)


def words(machine: Machine) -> dict[Any, int]:
    """Every word of memory that is not 0."""
    return {
        ("word", frame.pfn, idx): value
        for frame in machine.kernel.physmem.frames.values()
        for idx, value in enumerate(frame.words[:4])
        if value
    }


def snapshot(machine: Machine, obj: VmObject) -> dict[Any, Any]:
    return {s.key: s.state for s in shared_objects(machine, obj)} | words(machine)


def covers(written: set[Any], key: Any) -> bool:
    if key in written:
        return True
    if key[0] == "word":
        return ("frame", key[1]) in written
    # A flush of a whole TLB is announced as a write of %cr3.
    return key[0] == "tlb" and ("cr3", key[1]) in written


class Workload:
    """Two users of one object, one of them through odd addresses, and a thief of pages."""

    def __init__(self, policy: str, seed: int, **config: Any) -> None:
        self.machine = Machine(policy, pages=PAGES + 2, pqcolors=2, **config)
        self.machine.ex.checking = True
        self.obj = self.machine.object(PAGES)
        self.random = Random(seed)
        self.machine.resolve(self.vm_fault)
        for i in range(2):
            pmap = self.machine.pmap(f"p{i}")
            self.machine.backing(pmap, self.obj, BASE, PAGES, vpagetable=i == 1)
            self.machine.run_on(i, pmap)
            self.machine.spawn(f"user{i}", self.user(i))
            self.machine.spawn(f"inval{i}", self.inval(i))
        self.machine.spawn("thief", self.thief())

    async def vm_fault(self, vm_map: Any, va: int, fault_type: int, flags: int) -> int:
        pmap = vm_map.pmap
        pindex = (va - BASE) // 4096
        if pmap.name == "p1":
            pindex = PAGES - 1 - pindex
        async with self.obj.token:
            m = await vm_page_lookup_busy_wait(self.obj, pindex, "wait")
            if m is None:
                m = await vm_page_alloc(self.obj, pindex, VM_ALLOC_NORMAL)
                assert m is not None
                await m.frame.zero()
                m.valid = 0xFF
        await self.machine.kernel.rmap.mapped_through_vpte(m)
        prot = VM_PROT_ALL if fault_type == VM_PROT_WRITE else VM_PROT_READ
        await pmap_enter(pmap, va & ~4095, m, prot, False, ENTRY)
        await vm_page_activate(m)
        await vm_page_wakeup(m)
        return KERN_SUCCESS

    async def user(self, i: int) -> None:
        cpu = self.machine.kernel.cpus[i]
        lwp: Any = cpu.lwp
        for n in range(30):
            va = BASE + self.random.randrange(PAGES) * 4096 + 8 * self.random.randrange(4)
            try:
                match self.random.randrange(5):
                    case 0:
                        await cpu.load(va)
                    case 1 | 2:
                        await cpu.store(va, n)
                    case 3:
                        await cpu.cmpset(va, n - 1, n)
                    case 4:
                        await cpu.zero_page(va)
            except Fault:
                raise AssertionError from None
            if n % 5 == 4:
                await swtch_out(lwp)
                await swtch_in(lwp)

    async def inval(self, i: int) -> None:
        pmap = self.machine.kernel.pmaps[f"p{i}"]
        for _ in range(5):
            va = BASE + self.random.randrange(PAGES) * 4096
            await pmap_remove(pmap, va, va + 8192)
            await pmap_protect(pmap, BASE, BASE + PAGES * 4096, VM_PROT_READ)

    async def thief(self) -> None:
        rmap = self.machine.kernel.rmap
        for pindex in (*range(PAGES), *range(PAGES)):
            async with self.obj.token:
                m = await vm_page_lookup_busy_wait(self.obj, pindex, "thief")
            if m is None:
                continue
            await rmap.ts_referenced(m)
            await vm_page_deactivate(m)
            await vm_page_protect(m, VM_PROT_READ if pindex % 2 else VM_PROT_NONE)
            if not await vm_page_try_to_cache(m):
                async with self.obj.token:
                    again = await vm_page_lookup_busy_wait(self.obj, pindex, "thief")
                if again is not None:
                    await vm_page_protect(again, VM_PROT_NONE)
                    await vm_page_free(again)


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("shootdown", ["stream", "rendezvous"])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_changes_only_what_it_announced(seed: int, broken: bool, shootdown: str) -> None:
    workload = Workload("pv_entry", seed, shootdown=shootdown, ipi_threads=True)
    machine = workload.machine
    if broken:
        # The test of the test: an effect that announces less than it does.
        machine.spawn("broken", _unannounced(machine))
    before = snapshot(machine, workload.obj)
    found: list[Any] = []
    for _ in range(20_000):
        if not machine.ex.runnable and not machine.ex.advance():
            break
        tid = workload.random.choice(machine.ex.runnable)
        thread = machine.ex.threads[tid]
        effect = thread.pending
        assert effect is not None
        written = {
            obj.key
            for obj, write in ((effect.obj, effect.write), *effect.also)
            if write or hasattr(obj, "commute")
        }
        machine.step(thread)
        after = snapshot(machine, workload.obj)
        changed = {
            key
            for key in before.keys() | after.keys()
            if before.get(key, 0) != after.get(key, 0) and (before.get(key) or after.get(key))
        }
        found += [
            (repr(effect), key) for key in sorted(changed, key=repr) if not covers(written, key)
        ]
        before = after

    assert machine.ex.alive == 0
    assert {event[0] for event in machine.events} >= {"tlb.fill", "tlb.flush", "page.free"}
    assert bool(found) is broken, found


async def _unannounced(machine: Machine) -> None:
    from vkprotocol.effects import perform

    m = machine.kernel.pages[0]
    await perform(Effect(m.hold_count, "load", write=False))
    m.wire_count.state += 1
    await perform(Effect(m.hold_count, "load", write=False))
    m.wire_count.state -= 1
