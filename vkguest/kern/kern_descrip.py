"""Descriptors of programs in machine code. DragonFly `kern/kern_descrip.c`, `kern/sys_generic.c`.

A file is the console, a vnode of the disk, or one end of a pipe. proc_token covers tables, offsets
and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vkprotocol.errno import Errno
from vkprotocol.mman import PROT_READ
from vkprotocol.param import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

from vkguest.kern.param import phys_to_dmap
from vkguest.kern.pipe import BytePipe, pipe_close, pipe_create, pipe_read, pipe_write
from vkguest.kern.vkdisk import Vnode
from vkguest.vkernel64.copyio import bcopy_from, copyin, copyinstr, copyout
from vkguest.vm.vm_fault import FaultState, vm_fault_object
from vkguest.vm.vm_map import INHERIT_SHARE, VmMapEntry
from vkguest.vm.vm_page import vm_page_sleep_busy, vm_page_wakeup

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp, Proc
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vm.vm_page import VmPage

OPEN_MAX: Final = 64
PATH_MAX: Final = 1024
IO_MAX: Final = 1 << 16  # bytes of one read or write; more is a short one
SEEK_SET, SEEK_CUR, SEEK_END = 0, 1, 2


@dataclass(slots=True)
class File:
    """struct file, shared by fork and dup. `writes`: the end of a pipe that writes."""

    vnode: Vnode | None = None
    pipe: BytePipe | None = None
    writes: bool = False
    offset: int = 0
    refs: int = 0


def console_files() -> dict[int, File]:
    """What init opens for its first process: the console three times."""
    console = File(refs=3)
    return {0: console, 1: console, 2: console}


async def fget(gd: GlobalData, lp: Lwp, fd: int) -> File | None:
    assert lp.proc.md is not None
    async with gd.kernel.proc_token:
        return lp.proc.md.files.get(fd)


async def fdalloc(gd: GlobalData, lp: Lwp, *files: File) -> list[int] | None:
    """The lowest free numbers; None for EMFILE."""
    assert lp.proc.md is not None
    table = lp.proc.md.files
    async with gd.kernel.proc_token:
        free = [fd for fd in range(OPEN_MAX) if fd not in table][: len(files)]
        if len(free) < len(files):
            return None
        for fd, file in zip(free, files, strict=True):
            table[fd] = file
            file.refs += 1
        return free


async def fdrop(gd: GlobalData, file: File) -> None:
    """One reference less; the last one closes the pipe's end."""
    async with gd.kernel.proc_token:
        file.refs -= 1
        last = not file.refs
    if last and file.pipe is not None:
        await pipe_close(gd, file.pipe, writer=file.writes)


async def fdfree(gd: GlobalData, proc: Proc) -> None:
    """kern_exit.c: the process ends, and closes what it has."""
    if proc.md is None:
        return
    async with gd.kernel.proc_token:
        files = [file for _, file in sorted(proc.md.files.items())]
        proc.md.files.clear()
    for file in files:
        await fdrop(gd, file)


async def sys_open(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """open(path): a file of the disk, for reading; there is nothing else to open."""
    path = await copyinstr(gd, lp.proc.vmspace.vm_map, args[0], PATH_MAX)
    if path is None:
        return -Errno.EFAULT
    vnode = gd.kernel.disk.files.get(path.decode(errors="replace"))
    if vnode is None:
        return -Errno.ENOENT
    fds = await fdalloc(gd, lp, File(vnode=vnode))
    return -Errno.EMFILE if fds is None else fds[0]


async def sys_close(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    assert lp.proc.md is not None
    async with gd.kernel.proc_token:
        file = lp.proc.md.files.pop(args[0], None)
    if file is None:
        return -Errno.EBADF
    await fdrop(gd, file)
    return 0


async def sys_dup2(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    assert lp.proc.md is not None
    table = lp.proc.md.files
    old, new = args[:2]
    async with gd.kernel.proc_token:
        file = table.get(old)
        if file is None or new >= OPEN_MAX:
            return -Errno.EBADF
        if old == new:
            return new
        before = table.get(new)
        table[new] = file
        file.refs += 1
    if before is not None:
        await fdrop(gd, before)
    return new


async def sys_pipe(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> tuple[int, int] | int:
    """Two descriptors, in rax and rdx."""
    pipe = await pipe_create(gd)
    fds = await fdalloc(gd, lp, File(pipe=pipe), File(pipe=pipe, writes=True))
    if fds is None:
        await pipe_close(gd, pipe, writer=True)
        await pipe_close(gd, pipe, writer=False)
        return -Errno.EMFILE
    return fds[0], fds[1]


async def sys_read(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    fd, va, count = args[:3]
    file = await fget(gd, lp, fd)
    if file is None or file.writes:
        return -Errno.EBADF
    count = min(count, IO_MAX)
    if file.pipe is not None:
        return await pipe_read(gd, lp, file.pipe, va, count)
    if file.vnode is None:
        return 0  # the console has nothing to say
    async with gd.kernel.proc_token:
        offset = file.offset
    content = await vn_read(gd, file.vnode, offset, count)
    if not await copyout(gd, lp.proc.vmspace.vm_map, va, content):
        return -Errno.EFAULT
    async with gd.kernel.proc_token:
        file.offset = offset + len(content)
    return len(content)


async def sys_write(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    fd, va, count = args[:3]
    file = await fget(gd, lp, fd)
    if file is None or file.vnode is not None or (file.pipe is not None and not file.writes):
        return -Errno.EBADF
    count = min(count, IO_MAX)
    content = await copyin(gd, lp.proc.vmspace.vm_map, va, count)
    if content is None:
        return -Errno.EFAULT
    if file.pipe is not None:
        return await pipe_write(gd, lp, file.pipe, content)
    kernel = gd.kernel
    kernel.emit("guest.write", kernel.proc, lp.proc.pid, fd, content)
    return count


async def sys_lseek(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """lseek(fd, pad, offset, whence)."""
    fd, _, offset, whence = args[:4]
    file = await fget(gd, lp, fd)
    if file is None:
        return -Errno.EBADF
    if file.vnode is None or whence not in (SEEK_SET, SEEK_CUR, SEEK_END):
        return -Errno.EINVAL
    if offset >> 63:
        offset -= 1 << 64
    async with gd.kernel.proc_token:
        base = {SEEK_SET: 0, SEEK_CUR: file.offset, SEEK_END: file.vnode.size}[whence]
        if base + offset < 0:
            return -Errno.EINVAL
        file.offset = base + offset
        return file.offset


async def vn_read(gd: GlobalData, vnode: Vnode, offset: int, count: int) -> bytes:
    """vfs_vnops.c:vn_read, by the pages of its object, which mappings share. Raises VmWait."""
    found = b""
    count = max(0, min(count, vnode.size - offset))
    while len(found) < count:
        here = offset + len(found)
        m = await _page(gd, vnode, here >> PAGE_SHIFT)
        at = phys_to_dmap(m.frame) + (here & PAGE_MASK)
        part = min(count - len(found), PAGE_SIZE - (here & PAGE_MASK))
        found += await bcopy_from(gd, at, part)
        await vm_page_wakeup(m)
    return found


async def _page(gd: GlobalData, vnode: Vnode, pindex: int) -> VmPage:
    """A page of the file, busied, read in if need be."""
    entry = VmMapEntry(0, vnode.size, vnode.object, 0, PROT_READ, PROT_READ, INHERIT_SHARE)
    fs = FaultState(gd.kernel.no_map, pindex << PAGE_SHIFT, PROT_READ)
    while (m := await vm_fault_object(gd, fs, entry)) is None:
        assert fs.busy is not None
        await vm_page_sleep_busy(fs.busy)
    return m
