"""Reverse maps in whole machines: wires of the `wired` policy, and everything at once under the
oracle."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from vkemu.oracle import Oracle
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP

from tests.vkhost.vkernel import RW, Vkernel
from vkhost.pc64.pmap_bits import PTE_W, pte_pfn
from vkhost.quirks import Quirks
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_fault_page import vm_fault_page
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_map_protect import vm_map_protect
from vkhost.vm.vm_mmap import kern_mmap, sys_msync
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_wire import vm_page_unhold
from vkhost.vm.vmspace import vmspace_fork, vmspace_rel

PAGE = 4096
EXACT = ("pv_entry", "vpte_list", "bloom", "notifier", "shadow", "broadcast", "hybrid", "nested")


# Wired.


def wire_counts(k: Vkernel) -> dict[int, int]:
    """Wires by page index of the image."""
    obj = k.vnode.object
    assert obj is not None
    return {i: m.wire_count.state for i, m in sorted(obj.memq.items()) if m.wire_count.state}


def test_a_wire_for_each_pte_and_none_left() -> None:
    k = Vkernel("wired")
    k.vpagetable(k.tables({1: 10 << 12 | RW, 2: 10 << 12 | RW, 3: 11 << 12 | RW}))
    for va, kind in ((1, 1), (2, 1), (3, 1), (1, 2)):
        assert k.fault(va * PAGE, kind) == 0
    assert wire_counts(k) == {10: 2, 11: 1}
    assert k.kernel.vmstats.v_wire_count.state == 2

    k.do(vm_map_madvise(k.own.vm_map, PAGE, 2 * PAGE, MADV_INVAL))
    assert wire_counts(k) == {10: 1, 11: 1}

    k.do(vm_map_madvise(k.own.vm_map, 0, 1 << 30, MADV_SETMAP, 0))
    assert wire_counts(k) == {}
    assert k.kernel.vmstats.v_wire_count.state == 0
    assert k.own.pmap.wired_count == 0


def test_a_copy_in_of_a_wired_page_does_not_wait_for_itself() -> None:
    # vm_fault_page removes the PTE (|, facts 0.1) while it has the page busied; the PTE's wire is
    # dropped all the same, and what is mapped next has one again.
    k = Vkernel("wired", quirks=Quirks(didcow_or=True))
    k.vpagetable(k.tables({1: 10 << 12 | RW}))
    assert k.fault(PAGE, 1) == 0  # read-only, so that the write goes the long way

    m, result, _ = k.do(vm_fault_page(k.own.vm_map, PAGE, 2))

    assert result == 0
    assert wire_counts(k) == {}
    assert k.fault(PAGE, 2) == 0
    assert wire_counts(k) == {10: 1}
    k.do(vm_page_unhold(m))


# Everything at once.

SHORT: dict[str, Any] = {
    "pages": 24, "swap_pages": 64, "pageout": True, "emergency": True, "free_min": 4,
    "free_reserved": 3, "free_severe": 3, "free_target": 6, "inactive_target": 6,
}  # fmt: skip
ANON, DMAP = 2 << 30, 1 << 30


async def work(k: Vkernel, name: str, random: Random) -> None:
    """A thread of a correct vkernel: it faults, invalidates, copies in, forks and syncs."""
    vm_map = k.own.vm_map
    for _ in range(25):
        operation = random.randrange(10)
        va = random.choice([0, 0, DMAP, ANON]) + random.randrange(12) * PAGE
        if operation < 5:
            await vm_fault(vm_map, va, random.choice([1, 2]), random.choice([0, 4, 8]))
        elif operation == 5:
            await vm_map_madvise(vm_map, va, va + random.randrange(1, 8) * PAGE, MADV_INVAL)
        elif operation == 6:
            m, _, busied = await vm_fault_page(vm_map, va, random.choice([1, 2]), busy=True)
            if m is not None:
                await (vm_page_wakeup(m) if busied else vm_page_unhold(m))
        elif operation == 7:
            child = await vmspace_fork(k.own, f"{name}'s", k.proc)
            await vm_fault(child.vm_map, ANON + random.randrange(12) * PAGE, 2)
            await vmspace_rel(child)
        elif operation == 8:
            await sys_msync(k.proc, DMAP, 8 * PAGE, random.choice([0, 2]))
        else:
            start = random.randrange(4) * PAGE
            await vm_map_madvise(vm_map, start, 32 * PAGE, MADV_SETMAP, 1 << 12 | RW)
            await vm_map_protect(vm_map, ANON, ANON + 4 * PAGE, random.choice([1, 7]))


def everything(policy: str, **config: Any) -> Vkernel:
    k = Vkernel(policy, **{**SHORT, **config})
    oracle = Oracle()
    for name, *fields in k.events:
        oracle(name, *fields)
    k.kernel.emit = oracle
    k.vpagetable(k.tables({i: (10 + i) << 12 | RW for i in range(12)}), size=32 * PAGE)
    k.mmap(k.own, DMAP, 40 * PAGE, 0x1)
    k.do(kern_mmap(k.own, k.proc, ANON, 12 * PAGE, 7, 0x1012, -1, 0))
    return k


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", EXACT)
def test_everything_at_once_under_the_oracle(policy: str, seed: int) -> None:
    k = everything(policy)
    for i in range(3):
        k.spawn(f"w{i}", work(k, f"w{i}", Random(100 * seed + i)))

    k.run(seed, max_steps=400_000)

    assert k.own.vm_map.ilock_base is None
    assert k.own.vm_map.lock.state == (None, (), 0)
    assert all(m.hold_count.value == 0 for m in k.kernel.pages.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_wires_balance_under_the_oracle(seed: int) -> None:
    k = everything("wired", pages=40)
    for i in range(3):
        k.spawn(f"w{i}", work(k, f"w{i}", Random(100 * seed + i)))

    k.run(seed, max_steps=400_000)

    wires: dict[int, int] = {}
    for pmap in k.kernel.pmaps.values():
        for table in pmap.directory.tables.values():
            for pte in table.ptes.values():
                if pte.state & PTE_W:
                    wires[pte_pfn(pte.state)] = wires.get(pte_pfn(pte.state), 0) + 1
    assert {
        m.pfn: m.wire_count.state for m in k.kernel.pages.values() if m.wire_count.state
    } == wires
    assert k.kernel.vmstats.v_wire_count.state == len(wires)
