"""Pipes of words, for programs that are lists of instructions. DragonFly `kern/sys_pipe.c`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Lock
from vkprotocol.errno import Errno
from vkprotocol.guarded import guarded_by

from vkguest.kern.lockorder import PIPE_LOCK
from vkguest.kern.pipebuf import PipeBuf, pipe_free_kmem, pipespace
from vkguest.vkernel64.dmap import load, store

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData


@guarded_by("lock", "rpos", "wpos")
class Pipe:
    """`lock` covers everything. Positions count words ever read and written."""

    __slots__ = ("buf", "lock", "rpos", "wpos")

    def __init__(self, name: str, pipe_id: int, buf: PipeBuf) -> None:
        self.lock = Lock((name, "pipe", pipe_id), PIPE_LOCK)
        self.buf = buf
        self.rpos = 0
        self.wpos = 0

    @property
    def words(self) -> int:
        return self.buf.size // 8

    def at(self, pos: int) -> int:
        return self.buf.kva + 8 * (pos % self.words)


def _channel(pipe_id: int) -> str:
    return f"pipe {pipe_id}"


async def sys_pipe(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """pipe(pages): a new pipe. Its id is the maker's pid and a serial number."""
    pipe_pages_max = 8
    if not 1 <= args[0] <= pipe_pages_max:
        return -Errno.EINVAL
    buf = await pipespace(gd, args[0])
    kernel = gd.kernel
    async with kernel.proc_token:
        lp.proc.pipes += 1
        pipe_id = lp.proc.pid * 16 + lp.proc.pipes
        kernel.pipes[pipe_id] = Pipe(kernel.name, pipe_id, buf)
    return pipe_id


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
        empty = pipe.wpos == pipe.rpos
        if not empty:
            value = await load(gd, pipe.at(pipe.rpos))
            pipe.rpos += 1
        elif "pipe-sleeps-late" not in gd.mutants:
            await gd.kernel.sched.tsleep(lp, _channel(args[0]))
            return None
    if empty:
        await gd.kernel.sched.tsleep(lp, _channel(args[0]))
        return None
    await gd.kernel.sched.wakeup(_channel(args[0]))
    return value


async def sys_pipe_close(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    kernel = gd.kernel
    async with kernel.proc_token:
        pipe = kernel.pipes.pop(args[0], None)
    if pipe is None:
        return -Errno.EBADF
    await pipe_free_kmem(gd, pipe.buf)
    return 0
