"""The kernel reads and writes user memory. DragonFly vkernel64 `platform/copyio.c`.

There is no user mapping to go through: the page is looked up as a fault would, held, and accessed
through the DMAP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.mman import PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_MASK

from vkguest.kern.param import phys_to_dmap
from vkguest.vkernel64.dmap import load, store
from vkguest.vm.vm_fault import vm_fault_page_quick
from vkguest.vm.vm_page import vm_page_unhold

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vm.vm_map import VmMap


async def fuword64(gd: GlobalData, vm_map: VmMap, va: int) -> int | None:
    """copyio.c:fuword64: the word at `va`, None for EFAULT."""
    m = await vm_fault_page_quick(gd, vm_map, va, PROT_READ)
    if m is None:
        return None
    value = await load(gd, phys_to_dmap(m.frame) + (va & PAGE_MASK))
    await vm_page_unhold(gd, m)
    return value


async def suword64(gd: GlobalData, vm_map: VmMap, va: int, value: int) -> bool:
    """copyio.c:suword64. False for EFAULT."""
    m = await vm_fault_page_quick(gd, vm_map, va, PROT_READ | PROT_WRITE)
    if m is None:
        return False
    await store(gd, phys_to_dmap(m.frame) + (va & PAGE_MASK), value)
    await vm_page_unhold(gd, m)
    return True
