"""Pipes: words through a buffer in KVA, so that kernel mappings come, are used, and go.

DragonFly `kern/sys_pipe.c`. The buffer is address space from kmem_alloc_pageable with frames put
behind it by pmap_qenter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Lock
from vkprotocol.errno import Errno
from vkprotocol.guarded import guarded_by
from vkprotocol.param import PAGE_SIZE

from vkguest.kern.errors import VmWait
from vkguest.kern.lockorder import OBJECT_LOCK
from vkguest.vkernel64.dmap import load, store
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
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData


@guarded_by("lock", "rpos", "wpos")
class Pipe:
    """`lock` covers everything. Positions count words ever read and written."""

    __slots__ = ("frames", "kva", "lock", "rpos", "wpos")

    def __init__(self, name: str, pipe_id: int, kva: int, frames: list[VmPage]) -> None:
        self.lock = Lock((name, "pipe", pipe_id), OBJECT_LOCK)
        self.kva = kva
        self.frames = frames
        self.rpos = 0
        self.wpos = 0

    @property
    def words(self) -> int:
        return len(self.frames) * PAGE_SIZE // 8

    def at(self, pos: int) -> int:
        return self.kva + 8 * (pos % self.words)


def _channel(pipe_id: int) -> str:
    return f"pipe {pipe_id}"


async def sys_pipe(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """pipe(pages): a new pipe. Its id is the maker's pid and a serial number."""
    pipe_pages_max = 8
    if not 1 <= args[0] <= pipe_pages_max:
        return -Errno.EINVAL
    frames: list[VmPage] = []
    for n in range(args[0]):
        m = await vm_page_alloc(gd, None, n, VM_ALLOC_NORMAL, "pipe")
        if m is None:
            await vm_page_deficit(gd, len(frames))
            await _free(gd, frames)
            raise VmWait
        await vm_page_wire(gd, m)
        await vm_page_wakeup(m)
        frames.append(m)
    kernel = gd.kernel
    kva = await kernel.kva.kmem_alloc_pageable(len(frames))
    await kernel.kva.pmap_qenter(gd, kva, [m.frame for m in frames])
    async with kernel.proc_token:
        lp.proc.pipes += 1
        pipe_id = lp.proc.pid * 16 + lp.proc.pipes
        kernel.pipes[pipe_id] = Pipe(kernel.name, pipe_id, kva, frames)
    return pipe_id


async def _free(gd: GlobalData, frames: list[VmPage]) -> None:
    for m in frames:
        took = await vm_page_busy_try(m)
        assert took, "nobody else knows a pipe's frames"
        await vm_page_unwire(gd, m)
        await vm_page_free(gd, m)


async def _find(gd: GlobalData, pipe_id: int) -> Pipe | None:
    async with gd.kernel.proc_token:
        return gd.kernel.pipes.get(pipe_id)


async def sys_pipe_write(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    """One word r2 into pipe r1; sleeps while it is full."""
    pipe = await _find(gd, args[0])
    if pipe is None:
        return -Errno.EBADF
    async with pipe.lock:
        if pipe.wpos - pipe.rpos == pipe.words:
            await gd.kernel.sched.tsleep(lp, _channel(args[0]))
            return None
        await store(gd, pipe.at(pipe.wpos), args[1])
        pipe.wpos += 1
    await gd.kernel.sched.wakeup(_channel(args[0]))
    return 0


async def sys_pipe_read(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    """The next word of pipe r1; sleeps while there is none."""
    pipe = await _find(gd, args[0])
    if pipe is None:
        return -Errno.EBADF
    async with pipe.lock:
        if pipe.wpos == pipe.rpos:
            await gd.kernel.sched.tsleep(lp, _channel(args[0]))
            return None
        value = await load(gd, pipe.at(pipe.rpos))
        pipe.rpos += 1
    await gd.kernel.sched.wakeup(_channel(args[0]))
    return value


async def sys_pipe_close(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """The pipe is gone: VPTEs, the INVAL of the range, and only then the frames (W04)."""
    kernel = gd.kernel
    async with kernel.proc_token:
        pipe = kernel.pipes.pop(args[0], None)
    if pipe is None:
        return -Errno.EBADF
    if "early-frame-reuse" in gd.mutants:
        await _free(gd, pipe.frames)
        await kernel.kva.pmap_qremove(gd, pipe.kva, len(pipe.frames))
    else:
        await kernel.kva.pmap_qremove(gd, pipe.kva, len(pipe.frames))
        await _free(gd, pipe.frames)
    await kernel.kva.kmem_free(pipe.kva, len(pipe.frames))
    return 0
