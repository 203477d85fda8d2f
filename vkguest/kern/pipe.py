"""Pipes of bytes, for programs in machine code. DragonFly `kern/sys_pipe.c`.

The buffer is one page of kernel memory, in KVA (pipebuf.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Lock, fresh_key, key_text
from vkprotocol.errno import Errno
from vkprotocol.guarded import guarded_by
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vkernel import SIGPIPE

from vkguest.kern.kern_sig import lwpsignal
from vkguest.kern.lockorder import PIPE_LOCK
from vkguest.kern.pipebuf import PipeBuf, pipe_free_kmem, pipespace
from vkguest.vkernel64.copyio import bcopy_from, bcopy_to, copyout

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData

PIPE_BUF: Final = 512  # a write of no more than that is not mixed with another


@guarded_by("lock", "readers", "rpos", "wpos", "writers")
class BytePipe:
    """`lock` covers the positions, which count bytes ever read and written, and the open ends."""

    __slots__ = ("buf", "channel", "lock", "readers", "rpos", "wpos", "writers")

    def __init__(self, buf: PipeBuf) -> None:
        key = fresh_key("pipe")
        self.channel = key_text(key)
        self.lock = Lock(key, PIPE_LOCK)
        self.buf = buf
        self.rpos = self.wpos = 0
        self.readers = self.writers = True


async def pipe_create(gd: GlobalData) -> BytePipe:
    """Raises VmWait, with nothing done."""
    return BytePipe(await pipespace(gd, 1))


async def pipe_close(gd: GlobalData, pipe: BytePipe, *, writer: bool) -> None:
    """One end; with the second the buffer goes."""
    async with pipe.lock:
        if writer:
            pipe.writers = False
        else:
            pipe.readers = False
        over = not pipe.writers and not pipe.readers
    if not over:
        await gd.kernel.sched.wakeup(pipe.channel)
        return
    await pipe_free_kmem(gd, pipe.buf)


async def pipe_read(gd: GlobalData, lp: Lwp, pipe: BytePipe, va: int, count: int) -> int | None:
    """What there is, up to `count`; sleeps while there is nothing and somebody may write."""
    async with pipe.lock:
        there = min(count, pipe.wpos - pipe.rpos)
        if not there:
            if not pipe.writers or not count:
                return 0
            await gd.kernel.sched.tsleep(lp, pipe.channel)
            return None
        content = await _transfer(gd, pipe, pipe.rpos, there, None)
        # They leave the pipe when the program has them: the copy may have to wait for memory.
        if not await copyout(gd, lp.proc.vmspace.vm_map, va, content):
            return -Errno.EFAULT
        pipe.rpos += there
    await gd.kernel.sched.wakeup(pipe.channel)
    return there


async def pipe_write(gd: GlobalData, lp: Lwp, pipe: BytePipe, content: bytes) -> int | None:
    """All of it, asleep as often as the pipe is full."""
    md = lp.md
    assert md is not None
    rest = content[md.progress :]
    async with pipe.lock:
        broken = not pipe.readers
        space = PAGE_SIZE - (pipe.wpos - pipe.rpos)
        part = rest if len(rest) <= space else rest[: space if len(rest) > PIPE_BUF else 0]
        if not broken:
            await _transfer(gd, pipe, pipe.wpos, len(part), part)
            pipe.wpos += len(part)
            md.progress += len(part)
            if md.progress < len(content):
                if part:
                    await gd.kernel.sched.wakeup(pipe.channel)
                await gd.kernel.sched.tsleep(lp, pipe.channel)
                return None
    if broken:
        await lwpsignal(gd, lp, SIGPIPE)
        return -Errno.EPIPE
    await gd.kernel.sched.wakeup(pipe.channel)
    return len(content)


async def _transfer(
    gd: GlobalData, pipe: BytePipe, pos: int, count: int, content: bytes | None
) -> bytes:
    """Bytes at `pos` of the ring: read, or written when there is `content`."""
    at = pos % PAGE_SIZE
    first = min(count, PAGE_SIZE - at)
    pieces = [(at, 0, first), (0, first, count - first)]
    found = b""
    for start, skip, length in pieces:
        if length and content is None:
            found += await bcopy_from(gd, pipe.buf.kva + start, length)
        elif length and content is not None:
            await bcopy_to(gd, pipe.buf.kva + start, content[skip : skip + length])
    return found
