"""Faults as each tree has them: what an item changes, shown by what happens without it."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol import messages as msg
from vkprotocol.effects import Lock
from vkprotocol.insn import load, store

from tests.vkhost.vkernel import RW, Vkernel
from vkhost.pc64 import cpu
from vkhost.quirks import Quirks
from vkhost.tree import Tree
from vkhost.vm.vm import (
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    VM_FAULT_DIRTY,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault_object import vm_fault_object
from vkhost.vm.vm_fault_page import pmap_fault_page_quick, vm_fault_page
from vkhost.vm.vm_fault_state import FaultState
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE = VM_PROT_READ, VM_PROT_WRITE
PRIVATE, SHARED = 0x2, 0x1


@pytest.mark.parametrize(("tree", "walks"), [("5.4", False), ("2020", True)])
def test_the_quick_way_to_a_page_finds_none_since_2019(tree: Tree, walks: bool) -> None:
    """pmap.c:pmap_fault_page_quick: there are no terminal pv_entries, so vm_fault_page walks
    (`quick_finds_nothing`)."""
    k = Vkernel(tree=tree)
    k.vpagetable(k.tables({1: 10 << 12 | RW}))
    k.fault(PAGE, WRITE)
    before = len(k.named("vpte.read"))
    k.do(vm_fault_page(k.own.vm_map, PAGE, READ))

    assert (len(k.named("vpte.read")) > before) is walks


@pytest.mark.parametrize(("of_lookup_only", "stays"), [(True, True), (False, False)])
def test_a_copied_page_counts_as_a_copy_since_2026(of_lookup_only: bool, stays: bool) -> None:
    """vm_fault.c:vm_fault_object sets FW_DIDCOW, so that vm_fault_page takes the old PTE away. To
    2020 vm_map_lookup alone did: what had its shadow already kept showing the old page, if it were
    not for the `|`."""
    k = Vkernel(quirks=Quirks(didcow_of_lookup_only=of_lookup_only, didcow_or=False))
    k.mmap(k.own, 0, 4 * PAGE, PRIVATE)
    k.fault(0, WRITE)  # the shadow
    k.fault(PAGE, READ)
    k.do(vm_fault_page(k.own.vm_map, PAGE, WRITE))

    assert (k.mapped(PAGE) is not None) is stays


def test_what_a_fault_holds_goes_token_then_map_then_vnode() -> None:
    """vm_fault.c:unlock_things, of a fault that finds its page busy and is about to sleep."""
    k = Vkernel()
    k.mmap(k.own, 0, 4 * PAGE, SHARED)
    k.fault(0, WRITE)
    obj = k.vnode.object
    assert obj is not None
    m: VmPage = obj.memq[0]
    k.do(vm_page_busy_wait(m, "test"))
    k.own.pmap.pte(0).state = 0  # it is to be faulted again
    things: dict[str, Any] = {"token": obj.token, "map": k.own.vm_map.lock, "vnode": k.vnode.lock}

    async def fault() -> None:
        await k.kernel.vm_fault(k.own.vm_map, 0, WRITE, 0)

    thread = k.spawn("fault", fault())
    freed: list[str] = []
    held: set[str] = set()
    while thread.runnable:
        k.step(thread)
        now = {name for name, lock in things.items() if lock.holders()}
        freed += [name for name in things if name in held - now]
        held = now

    assert freed == ["token", "map", "vnode"]
    k.do(vm_page_wakeup(m))
    k.finish(thread)


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_write_fault_of_a_user_access_dirties_the_page_at_once(
    taken_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """trap.c:trap_pfault says VM_FAULT_DIRTY: no M bit has to be found for it."""
    if taken_back:
        flags = cpu.pfault_flags
        monkeypatch.setattr(cpu, "pfault_flags", lambda kind: flags(kind) & ~VM_FAULT_DIRTY)
    k = Vkernel()
    k.mmap(k.own, 0, 4 * PAGE, SHARED)
    k.start()
    k.call(msg.CpuOps(lwp=0, seq=1, ops=(load(0), store(PAGE, 7))))
    obj = k.vnode.object
    assert obj is not None

    assert not obj.memq[0].dirty.value
    assert bool(obj.memq[1].dirty.value) is not taken_back


@pytest.mark.parametrize("leaves", [True, False])
def test_vm_fault_page_leaves_a_page_busy_that_it_may_not_write(
    leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vm_fault.c:vm_fault_page: nothing releases it. It takes an odd state to get there."""
    k = Vkernel("extent_scan", quirks=Quirks(fault_page_leaves_busy=leaves))
    k.mmap(k.own, 0, 4 * PAGE, SHARED)
    k.fault(0, READ)

    async def read_only(fs: FaultState, pindex: int, fault_type: int) -> int:
        result = await vm_fault_object(fs, pindex, fault_type)
        fs.prot &= ~WRITE
        return result

    monkeypatch.setattr("vkhost.vm.vm_fault_page.vm_fault_object", read_only)
    m, result, _ = k.do(vm_fault_page(k.own.vm_map, 0, WRITE))
    assert (m, result) == (None, KERN_PROTECTION_FAILURE)
    assert k.vnode.object is not None
    assert bool(k.vnode.object.memq[0].busy_count.value) is leaves


@pytest.mark.parametrize(("tree", "dirty"), [("2020", True), ("2026", False)])
def test_who_reads_a_page_of_a_wired_entry_is_taken_for_a_writer(tree: Tree, dirty: bool) -> None:
    """vm_fault.c:vm_fault_page: the widened fault type says whether the page is dirtied, and
    returned busied."""
    k = Vkernel("extent_scan", tree=tree)
    k.mmap(k.own, 0, 4 * PAGE, SHARED)
    k.own.vm_map.entries[0].wired_count = 1
    m, result, busied = k.do(vm_fault_page(k.own.vm_map, 0, READ, busy=True))

    assert result == KERN_SUCCESS
    assert (bool(m.dirty.value), busied) == (dirty, dirty)


def test_the_quick_way_to_a_page_waits_for_its_page_table_and_not_for_its_pte() -> None:
    """pmap.c:pmap_fault_page_quick, [54]: pv_get of the page table page, pv_get_try of the PTE."""
    k = Vkernel("pv_entry")
    k.mmap(k.own, 0, 4 * PAGE, SHARED)
    k.fault(0, WRITE)
    pte = k.own.pmap.pte(0)
    placemark = k.own.pmap.placemark(0)
    found: list[VmPage | None] = []

    async def hold(lock: Lock) -> None:
        await lock.acquire()
        await lock.release()

    async def quick() -> None:
        found.append(await pmap_fault_page_quick(k.own.pmap, 0, WRITE, busy=False))

    holder = k.spawn("pt_pv", hold(pte.table.lock))
    k.step(holder)
    waits = k.spawn("waits", quick())
    k.blocked(waits)
    k.finish(holder, waits)
    holder = k.spawn("placemark", hold(placemark))
    k.step(holder)
    k.finish(k.spawn("goes", quick()), holder)

    assert [m is not None for m in found] == [True, False]


def test_a_copy_of_an_earlier_try_is_remembered() -> None:
    """vm_fault.c:vm_fault_page, didcow: vm_map_lookup has put the shadow there, and what allocates
    starts again with the exclusive token."""
    k = Vkernel(quirks=Quirks(didcow_of_lookup_only=True, didcow_or=False))
    k.mmap(k.own, 0, 4 * PAGE, PRIVATE)
    k.fault(0, READ)
    k.own.vm_map.entries[0].ba.excl_heur.state = False
    k.events.clear()
    k.do(vm_fault_page(k.own.vm_map, 0, WRITE))

    assert [event[-1] for event in k.named("fault.retry")] == ["exclusive"]
    assert k.mapped(0) is None
