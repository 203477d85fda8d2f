"""The buffer of a pipe, in KVA: kernel mappings that come, are used, and go.

DragonFly `kern/sys_pipe.c:pipespace`. A vkernel with a kernel_map has pageable buffers, of which a
page comes when the kernel faults on it. Without one the frames are there from the start, put behind
the address space by pmap_qenter, and the kernel never faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.param import PAGE_SIZE

from vkguest.kern.errors import VmWait
from vkguest.vm.vm_kern import kmem_free, vm_map_find
from vkguest.vm.vm_object import VmObject
from vkguest.vm.vm_page import (
    VM_ALLOC_NORMAL,
    VmPage,
    vm_page_alloc,
    vm_page_busy_try,
    vm_page_deficit,
    vm_page_free,
    vm_page_unwire,
    vm_page_wakeup,
    vm_page_wire,
)

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData


class PipeBuf:
    """struct pipebuf: `pages` of KVA; `frames`, those wired behind it, none if it is pageable."""

    __slots__ = ("frames", "kva", "pages")

    def __init__(self, kva: int, pages: int, frames: list[VmPage]) -> None:
        self.kva = kva
        self.pages = pages
        self.frames = frames

    @property
    def size(self) -> int:
        return self.pages * PAGE_SIZE


async def pipespace(gd: GlobalData, pages: int) -> PipeBuf:
    """sys_pipe.c:pipespace. Raises VmWait, with nothing done."""
    kernel = gd.kernel
    if kernel.has_kernel_map:
        return PipeBuf(await vm_map_find(gd, pages, VmObject()), pages, [])
    frames: list[VmPage] = []
    for n in range(pages):
        m = await vm_page_alloc(gd, None, n, VM_ALLOC_NORMAL, "pipe")
        if m is None:
            if frames:
                await vm_page_deficit(gd, len(frames))
            await _free(gd, frames)
            raise VmWait
        await vm_page_wire(gd, m)
        await vm_page_wakeup(m)
        frames.append(m)
    kva = await kernel.kva.kmem_alloc_pageable(pages)
    await kernel.kva.pmap_qenter(gd, kva, [m.frame for m in frames])
    return PipeBuf(kva, pages, frames)


async def pipe_free_kmem(gd: GlobalData, buf: PipeBuf) -> None:
    """sys_pipe.c:pipe_free_kmem: VPTEs, INVAL, and only then the frames (W04)."""
    kva = gd.kernel.kva
    if not buf.frames:
        await kmem_free(gd, buf.kva, buf.pages)
        return
    if "early-frame-reuse" in gd.mutants:
        await _free(gd, buf.frames)
        await kva.pmap_qremove(gd, buf.kva, buf.pages)
    else:
        await kva.pmap_qremove(gd, buf.kva, buf.pages)
        await _free(gd, buf.frames)
    await kva.kmem_free(buf.kva, buf.pages)


async def _free(gd: GlobalData, frames: list[VmPage]) -> None:
    for m in frames:
        took = await vm_page_busy_try(m)
        assert took, "nobody else knows a pipe's frames"
        await vm_page_unwire(gd, m)
        await vm_page_free(gd, m)
