"""How a virtual kernel comes up. DragonFly vkernel64 `platform/init.c`, `platform/pmap.c`.

sysctl vm.vkernel_enable
mmap  KVA   FILE|SHARED|VPAGETABLE|FIXED|TRYFIXED   every access fails, there is no root yet
NOSYNC
mmap  DMAP  FILE|SHARED|NOCORE|NOSYNC               NORMAL: the way to all of the image
-z          prezero through the DMAP
pmap_bootstrap builds frames 0 to 3 through the DMAP
SETMAP 0|RW|V                                       now KVA works; the result is not looked at
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.errno import errno_name
from vkprotocol.insn import store, zero_page
from vkprotocol.mman import (
    MADV_NOSYNC,
    MADV_SETMAP,
    MAP_FILE,
    MAP_FIXED,
    MAP_NOCORE,
    MAP_NOSYNC,
    MAP_SHARED,
    MAP_TRYFIXED,
    MAP_VPAGETABLE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import (
    DMAP_SIZE,
    KERNEL_KVA_SIZE,
    KERNEL_KVA_START,
    PAGE_SHIFT,
    SEG_SHIFT,
)
from vkprotocol.vpte import VPTE_RW, VPTE_U, VPTE_V

from vkguest.kern.errors import BootError
from vkguest.kern.param import (
    DMAP_MIN_ADDRESS,
    FIRST_FREE_FRAME,
    KPD_FRAME,
    KPDP_FRAME,
    KPML4_FRAME,
    KPT_FRAME,
    PDP_SHIFT,
    PML4_SHIFT,
    phys_to_dmap,
)
from vkguest.vkernel64.dmap import access
from vkguest.vkernel64.image import memory_banner
from vkguest.vkernel64.pv import pte_slot

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData

PROT_ALL = PROT_READ | PROT_WRITE | PROT_EXEC


async def boot(gd: GlobalData) -> None:
    """init.c:main, up to where the memory works. Raises BootError."""
    kernel = gd.kernel
    reply = await gd.sysctl("vm.vkernel_enable")
    if reply.errno == 0 and reply.value == 0:
        raise BootError("vm.vkernel_enable is 0, must be set to 1 to execute a vkernel!")
    kernel.emit("console", f"{kernel.name}: {memory_banner(kernel.memory_pages)}")
    await init_kern_memory(gd)


async def init_kern_memory(gd: GlobalData) -> None:
    """init.c:init_kern_memory."""
    flags = MAP_FILE | MAP_SHARED | MAP_VPAGETABLE | MAP_FIXED | MAP_TRYFIXED
    reply = await gd.mmap(KERNEL_KVA_START, KERNEL_KVA_SIZE, PROT_ALL, flags, KERNEL_KVA_START)
    if reply.errno:
        raise BootError(
            f"{gd.kernel.name}: cannot boot: mmap of kernel virtual addresses with "
            f"MAP_VPAGETABLE: {errno_name(reply.errno)}"
        )
    await gd.madvise(KERNEL_KVA_START, KERNEL_KVA_SIZE, MADV_NOSYNC)
    flags = MAP_FILE | MAP_SHARED | MAP_FIXED | MAP_NOCORE | MAP_NOSYNC
    reply = await gd.mmap(DMAP_MIN_ADDRESS, DMAP_SIZE, PROT_READ | PROT_WRITE, flags, 0)
    if reply.errno:
        raise BootError(f"{gd.kernel.name}: cannot boot: mmap of DMAP: {errno_name(reply.errno)}")
    if gd.kernel.prezero:
        await prezero(gd)
    await pmap_bootstrap(gd)
    root = (KPML4_FRAME << PAGE_SHIFT) | VPTE_RW | VPTE_V
    await gd.mcontrol(KERNEL_KVA_START, KERNEL_KVA_SIZE, MADV_SETMAP, root)


async def prezero(gd: GlobalData) -> None:
    """-z: touch all of memory once, so that it is resident before it is needed."""
    prezero_batch = 256
    for first in range(0, gd.kernel.memory_pages, prezero_batch):
        end = min(first + prezero_batch, gd.kernel.memory_pages)
        await access(gd, *(zero_page(phys_to_dmap(frame)) for frame in range(first, end)))


async def pmap_bootstrap(gd: GlobalData) -> None:
    """pmap.c:pmap_bootstrap, create_pagetables: the kernel's own tables, for 2 MB of KVA."""
    bits = VPTE_RW | VPTE_V | VPTE_U
    va = KERNEL_KVA_START

    def link(table: int, index: int, frame: int) -> tuple[int, int]:
        return pte_slot(table, index), (frame << PAGE_SHIFT) | bits

    links = (
        link(KPD_FRAME, va >> SEG_SHIFT, KPT_FRAME),
        link(KPDP_FRAME, va >> PDP_SHIFT, KPD_FRAME),
        link(KPML4_FRAME, va >> PML4_SHIFT, KPDP_FRAME),
    )
    await access(
        gd,
        *(zero_page(phys_to_dmap(frame)) for frame in range(FIRST_FREE_FRAME)),
        *(store(slot, entry) for slot, entry in links),
    )
