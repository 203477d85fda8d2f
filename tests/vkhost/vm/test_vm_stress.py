"""Everything at once, with too little memory: no deadlock, no panic, nothing left behind."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.vkhost.vkernel import RW, Vkernel
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_fault_page import vm_fault_page
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_map_protect import vm_map_protect
from vkhost.vm.vm_mmap import kern_mmap, sys_msync
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_wire import vm_page_unhold
from vkhost.vm.vmspace import vmspace_fork, vmspace_rel

PAGE = 4096
GUEST, LINEAR, ANON = 0, 1 << 30, 2 << 30
SEVERE: dict[str, Any] = {
    "pages": 20, "swap_pages": 64, "pageout": True, "emergency": True, "free_min": 4,
    "free_reserved": 3, "free_severe": 3, "free_target": 6, "inactive_target": 6,
}  # fmt: skip


def short_of_memory() -> Vkernel:
    """A page table mapping, the image once more, and anonymous memory."""
    k = Vkernel("pv_entry", **SEVERE)
    tables = k.tables({i: (10 + i) << 12 | RW for i in range(16)})
    k.vpagetable(tables, size=64 * PAGE)
    k.mmap(k.own, LINEAR, 40 * PAGE, 0x1)
    k.do(kern_mmap(k.own, k.proc, ANON, 16 * PAGE, 7, 0x1012, -1, 0))
    return k


async def worker(k: Vkernel, name: str, random: Random) -> None:
    vm_map = k.own.vm_map
    for _ in range(40):
        operation = random.randrange(9)
        base = random.choice([GUEST, LINEAR, ANON])
        va = base + random.randrange(16) * PAGE
        if operation < 4:
            await vm_fault(vm_map, va, random.choice([1, 2]), random.choice([0, 4, 8]))
        elif operation == 4:
            await vm_map_madvise(vm_map, va, va + random.randrange(1, 8) * PAGE, 10)
        elif operation == 5:
            m, _, busied = await vm_fault_page(vm_map, va, random.choice([1, 2]), busy=True)
            if m is not None:
                await (vm_page_wakeup(m) if busied else vm_page_unhold(m))
        elif operation == 6:
            child = await vmspace_fork(k.own, f"{name}'s", k.proc)
            await vm_fault(child.vm_map, ANON + random.randrange(16) * PAGE, 2)
            await vmspace_rel(child)
        elif operation == 7:
            await sys_msync(k.proc, LINEAR, 8 * PAGE, random.choice([0, 2]))
        else:
            await vm_map_madvise(vm_map, GUEST, 64 * PAGE, 11, 1 << 12 | RW)
            await vm_map_protect(vm_map, ANON, ANON + 4 * PAGE, random.choice([1, 7]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_four_workers_and_the_pagedaemon(seed: int) -> None:
    k = short_of_memory()
    for i in range(4):
        k.spawn(f"w{i}", worker(k, f"w{i}", Random(100 * seed + i)))
    k.run(seed, max_steps=400_000)

    assert k.own.vm_map.ilock_base is None
    assert k.own.vm_map.lock.state == (None, (), 0)
    assert all(m.hold_count.value == 0 for m in k.kernel.pages.values())
    assert len(k.named("pageout.pass")) > 0
