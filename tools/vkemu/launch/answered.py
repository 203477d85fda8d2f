"""What a host program asks of its kernel, call by call, each with the answer that is right.

Where a mapping comes to lie, what of a file may be read and written, and every reason that there is
to refuse a call. Errnos: DragonFly's manual pages, and the functions that vm_mmap.py names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from vkprotocol.errno import Errno
from vkprotocol.insn import andn_bits, cmpset, load, or_bits, store, swap
from vkprotocol.messages import (
    CpuOps,
    Exit,
    Kill,
    Madvise,
    Mcontrol,
    Mmap,
    Msync,
    Munmap,
    Pread,
    Pwrite,
    Reply,
    Request,
    Sysctl,
    VmspaceCreate,
    VmspaceDestroy,
    VmspaceMcontrol,
    VmspaceMmap,
    VmspaceMunmap,
    VmspacePread,
    VmspacePwrite,
)
from vkprotocol.mman import (
    MADV_FREE,
    MADV_INVAL,
    MADV_NORMAL,
    MADV_SETMAP,
    MAP_ANON,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SIZEALIGN,
    MAP_STACK,
    MAP_TRYFIXED,
    MS_ASYNC,
    MS_INVALIDATE,
    MS_SYNC,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import PAGE_SIZE, SEG_SIZE, VM_MAX_USER_ADDRESS

from vkhost.kern.lwp import File, Proc
from vkhost.kern.user_calls import Fork, Mlock, Mprotect, Munlock
from vkhost.vm.vnode import MemoryVnode

NO_FD: Final = 9
BOTH, READ, WRITE = 10, 11, 12  # one file, by what it is open for
AT: Final = 1 << 40  # nothing is there
RW: Final = PROT_READ | PROT_WRITE
ANON: Final = MAP_ANON | MAP_PRIVATE
PAGES: Final = 2  # of the file, and half of one
HALF: Final = PAGE_SIZE // 2


class Answered:
    """`stamp`: the number of the next request; `lwp`: who makes it, of the process or a child."""

    def __init__(self, stamp: Callable[[], int], proc: Proc) -> None:
        self.stamp = stamp
        self.proc = proc
        self.lwp = proc.lwps[0]
        self.moves = not proc.kernel.quirks.pwrite_einval  # vmspace_pread and vmspace_pwrite do
        # Nobody has its name, so that the reference knows nothing of it.
        self.file = MemoryVnode(f"{proc.name}.half", PAGES * PAGE_SIZE + HALF)
        self.file.unlinked = True
        proc.files[BOTH] = File(self.file)
        proc.files[READ] = File(self.file, fwrite=False)
        proc.files[WRITE] = File(self.file, fread=False)

    async def ask(
        self, kind: type[Request], errno: int = 0, value: int | None = None, **fields: Any
    ) -> Reply:
        """The call, and that it is answered so."""
        request = kind(lwp=0, seq=self.stamp(), **fields)
        await self.lwp.requests.send(request)
        reply = await self.lwp.replies.recv()
        assert isinstance(reply, Reply), reply
        assert reply.errno == errno, (request, reply.errno)
        assert value in (None, reply.value), (request, reply.value)
        return reply

    async def mmap(self, errno: int = 0, value: int | None = None, **fields: Any) -> None:
        """Of a page at AT, anonymous and private, unless it is said."""
        usual = {"addr": AT, "length": PAGE_SIZE, "prot": RW, "flags": ANON, "fd": -1, "offset": 0}
        await self.ask(Mmap, errno, value, **(usual | fields))

    async def word(self, va: int, expected: int) -> None:
        reply = await self.ask(CpuOps, ops=(load(va),))
        assert reply.values == (expected,), (hex(va), reply.values)

    async def all(self) -> None:
        """First that of which the reference knows all, last what makes it a vkernel."""
        await self.mmap(value=AT)
        await self.neighbours()
        await self.shares()
        await self.words()
        await self.placement()
        await self.ranges()
        await self.limits()
        await self.locks()
        await self.stacks()
        await self.files()
        await self.mapped_files()
        await self.vmspaces()
        await self.others()
        await self.ask(Munmap, addr=AT, length=PAGE_SIZE)

    async def placement(self) -> None:
        """The first fit from the address on, of the alignment that is asked; or there, or not."""
        end, seg = VM_MAX_USER_ADDRESS, SEG_SIZE
        await self.mmap(value=AT + PAGE_SIZE)
        await self.mmap(value=AT + 2 * PAGE_SIZE, addr=AT + PAGE_SIZE - 1)
        size = 4 * PAGE_SIZE
        await self.mmap(value=AT + size, length=size, flags=ANON | MAP_SIZEALIGN)
        await self.mmap(value=AT + seg, length=seg)
        await self.mmap(Errno.EINVAL, length=3 * PAGE_SIZE, flags=ANON | MAP_SIZEALIGN)
        await self.ask(CpuOps, ops=(store(AT, 7),))
        await self.mmap(Errno.ENOMEM, flags=ANON | MAP_TRYFIXED)
        await self.word(AT, 7)
        await self.mmap(value=AT, flags=ANON | MAP_FIXED)
        await self.word(AT, 0)
        await self.mmap(value=end - PAGE_SIZE, addr=end - PAGE_SIZE, flags=ANON | MAP_TRYFIXED)
        await self.ask(Munmap, addr=end - PAGE_SIZE, length=PAGE_SIZE)
        await self.mmap(Errno.ENOMEM, addr=0, length=1 << 50)
        for addr in (1, AT + 1, end):
            await self.mmap(Errno.EINVAL, addr=addr, flags=ANON | MAP_FIXED)
        await self.mmap(Errno.EINVAL, length=0)
        await self.mmap(Errno.EINVAL, length=(1 << 64) - 1)
        await self.mmap(Errno.EINVAL, offset=PAGE_SIZE)
        await self.mmap(Errno.EINVAL, fd=NO_FD)
        await self.ask(Munmap, addr=AT + PAGE_SIZE, length=7 * PAGE_SIZE, errno=Errno.EINVAL)
        await self.ask(Munmap, addr=AT + PAGE_SIZE, length=2 * PAGE_SIZE)
        await self.ask(Munmap, addr=AT + size, length=size)
        await self.ask(Munmap, addr=AT + seg, length=seg)

    async def stacks(self) -> None:
        """MAP_STACK is memory of nobody's file."""
        stack = MAP_STACK | MAP_PRIVATE | MAP_FIXED
        await self.mmap(value=AT, flags=stack, offset=PAGE_SIZE)
        await self.word(AT, 0)
        await self.mmap(Errno.EINVAL, flags=stack, fd=BOTH)
        await self.mmap(Errno.EINVAL, flags=stack, prot=PROT_READ)

    async def ranges(self) -> None:
        """Holes, lengths of nothing, and what wraps."""
        bad, end, size = Errno.EINVAL, VM_MAX_USER_ADDRESS, PAGE_SIZE
        wraps = (1 << 64) - HALF
        hole, much = AT + size, 1 << 50
        for kind, of_hole, of_nothing, more in (
            (Munmap, bad, 0, {}),
            (Mprotect, 0, 0, {"prot": RW}),
            (Mlock, Errno.ENOMEM, 0, {}),
            (Munlock, Errno.ENOMEM, 0, {}),
            (Msync, bad, bad, {"flags": MS_SYNC}),
        ):
            await self.ask(kind, of_hole, addr=hole, length=size, **more)
            await self.ask(kind, of_nothing, addr=hole, length=0, **more)
            await self.ask(kind, bad, addr=hole + size - 1, length=wraps, **more)
        await self.ask(Munmap, bad, addr=end, length=size)
        await self.ask(Mlock, Errno.EAGAIN, addr=0, length=much)
        await self.ask(Madvise, addr=hole, length=0, behav=MADV_FREE)
        await self.ask(Madvise, bad, addr=0, length=much, behav=MADV_FREE)
        for behav in (-1, MADV_SETMAP, 99):
            await self.ask(Madvise, bad, addr=AT, length=size, behav=behav)
        await self.ask(Madvise, addr=AT, length=size, behav=MADV_NORMAL)
        await self.ask(Mcontrol, bad, addr=AT, length=size, behav=99, value=0)
        await self.ask(Msync, bad, addr=AT, length=0, flags=MS_ASYNC | MS_INVALIDATE)
        await self.ask(Msync, addr=AT, length=0, flags=MS_ASYNC)

    async def limits(self) -> None:
        """There are so many entries and so many bytes, and no more; what one entry could say is
        said by one."""
        proc, at, pages = self.proc, AT + SEG_SIZE, 8
        entries, size = proc.max_proc_mmap, proc.rlimit_vmem
        await self.mmap(value=at, addr=at, length=pages * PAGE_SIZE)
        for n in range(pages):
            page = {"addr": at + n * PAGE_SIZE, "length": PAGE_SIZE}
            await self.ask(Mprotect, **page, prot=PROT_READ)
            await self.ask(Mprotect, **page, prot=RW)
        proc.max_proc_mmap = 4  # what the process has begun with, AT, that, and one more
        await self.mmap(value=at + SEG_SIZE, addr=at + SEG_SIZE)
        await self.mmap(Errno.ENOMEM, addr=at + 2 * SEG_SIZE)
        proc.max_proc_mmap, proc.rlimit_vmem = entries, SEG_SIZE
        await self.mmap(Errno.ENOMEM, addr=at + 2 * SEG_SIZE, length=SEG_SIZE)
        await self.mmap(addr=at + 2 * SEG_SIZE)
        proc.rlimit_vmem = size
        await self.ask(Munmap, addr=at, length=pages * PAGE_SIZE)
        for n in (1, 2):
            await self.ask(Munmap, addr=at + n * SEG_SIZE, length=PAGE_SIZE)

    async def locks(self) -> None:
        page = {"addr": AT, "length": PAGE_SIZE}
        await self.ask(Mlock, **page)
        await self.ask(Munlock, **page)
        await self.ask(Munlock, Errno.ENOMEM, **page)
        three = {"addr": AT, "length": 3 * PAGE_SIZE}  # locked at once, as three entries unlocked
        await self.mmap(value=AT, length=three["length"], flags=ANON | MAP_FIXED)
        await self.ask(Mprotect, addr=AT + PAGE_SIZE, length=PAGE_SIZE, prot=PROT_READ)
        await self.ask(Mlock, **three)
        await self.ask(Munlock, **three)
        await self.ask(Munlock, Errno.ENOMEM, addr=AT + 2 * PAGE_SIZE, length=PAGE_SIZE)
        await self.ask(Munmap, addr=AT + PAGE_SIZE, length=2 * PAGE_SIZE)
        for prot in (PROT_NONE, PROT_READ):
            await self.ask(Mprotect, **page, prot=prot)
            op = store(AT, 1) if prot else load(AT)
            await self.ask(CpuOps, Errno.EFAULT, 0, ops=(op,))
        await self.ask(Mprotect, **page, prot=RW | PROT_EXEC)
        await self.ask(CpuOps, ops=(store(AT, 1),))

    async def files(self) -> None:
        """A page at a time, between the file and memory, as far as the file goes."""
        marked = b"\7" * 8
        await self.ask(CpuOps, ops=(store(AT + 8, int.from_bytes(marked, "little")),))
        last = PAGES * PAGE_SIZE
        for kind, closed in ((Pread, WRITE), (Pwrite, READ)):
            for fd in (NO_FD, closed):
                await self.ask(kind, Errno.EBADF, fd=fd, addr=AT, offset=0)
            for addr, offset in ((AT + 8, 0), (AT, 8), (AT, -PAGE_SIZE)):
                await self.ask(kind, Errno.EINVAL, fd=BOTH, addr=addr, offset=offset)
            await self.ask(kind, Errno.EFAULT, fd=BOTH, addr=AT + PAGE_SIZE, offset=0)
        assert not any(self.file.content)
        await self.ask(Pwrite, Errno.EINVAL, fd=BOTH, addr=AT, offset=last + PAGE_SIZE)
        await self.ask(Pwrite, value=PAGE_SIZE, fd=WRITE, addr=AT, offset=PAGE_SIZE)
        await self.ask(Pwrite, value=HALF, fd=BOTH, addr=AT, offset=last)
        for at in (0, PAGE_SIZE, last):
            assert self.file.content[at + 8 : at + 16] == (marked if at else bytes(8)), at
        self.file.content[8] = 1
        await self.ask(Pread, value=PAGE_SIZE, fd=READ, addr=AT, offset=0)
        await self.ask(Pwrite, value=PAGE_SIZE, fd=BOTH, addr=AT, offset=PAGE_SIZE)
        assert self.file.content[PAGE_SIZE : 2 * PAGE_SIZE] == self.file.content[:PAGE_SIZE]
        await self.ask(Pread, value=HALF, fd=BOTH, addr=AT, offset=last)
        await self.ask(Pread, value=0, fd=BOTH, addr=AT, offset=last + PAGE_SIZE)
        await self.mmap(value=AT, flags=ANON | MAP_FIXED)  # as the reference knows it again

    async def mapped_files(self) -> None:
        """What it is open for is what may be done with it, unless it is a copy that is written."""
        at, private, shared = AT + SEG_SIZE, MAP_PRIVATE | MAP_FIXED, MAP_SHARED | MAP_FIXED
        for errno, fd, flags, prot in (
            (Errno.EBADF, NO_FD, private, PROT_READ),
            (Errno.EACCES, WRITE, shared, PROT_READ),
            (Errno.EACCES, READ, shared, RW),
            (0, READ, private, RW),
            (0, BOTH, shared, RW),
            (0, READ, shared, PROT_READ),
        ):
            await self.mmap(errno, addr=at, flags=flags, prot=prot, fd=fd)
        page = {"addr": at, "length": PAGE_SIZE}
        await self.ask(Mprotect, Errno.EACCES, **page, prot=RW)
        await self.ask(Msync, **page, flags=MS_INVALIDATE)
        off = HALF - 8  # the mapping begins with its page
        await self.mmap(value=at + off, addr=at + off, flags=private, fd=BOTH, offset=off)
        await self.ask(Munmap, addr=at, length=PAGE_SIZE)

    async def neighbours(self) -> None:
        """What is mapped with a page that is read is what is there, wherever the mapping begins."""
        low, pages = 3 * PAGE_SIZE, 6
        flags = MAP_SHARED | MAP_ANON | MAP_FIXED
        await self.mmap(value=low, addr=low, length=pages * PAGE_SIZE, flags=flags)
        for n in range(pages):
            await self.ask(CpuOps, ops=(store(low + n * PAGE_SIZE, n),))
        around = {"addr": low, "length": pages * PAGE_SIZE}
        for prot in (PROT_NONE, RW):  # no PTE is left
            await self.ask(Mprotect, **around, prot=prot)
        for n in (2, 1, 3, 0, 4, 5):
            await self.word(low + n * PAGE_SIZE, n)
        await self.ask(Munmap, **around)

    async def shares(self) -> None:
        """What a child may change of its parent's memory, and what it may not."""
        ours, both = AT, AT + PAGE_SIZE
        await self.mmap(value=both, addr=both, flags=MAP_SHARED | MAP_ANON | MAP_FIXED)
        await self.ask(CpuOps, ops=(store(ours, 1), store(both, 1)))
        pid = (await self.ask(Fork)).value
        child = next(proc for proc in self.proc.kernel.procs if proc.pid == pid)
        parent, self.lwp = self.lwp, child.lwps[0]
        await self.word(ours, 1)
        await self.ask(CpuOps, ops=(store(ours, 2), store(both, 2)))
        self.lwp = parent
        await self.word(ours, 1)
        await self.word(both, 2)
        await self.ask(CpuOps, ops=(store(ours, 3), store(both, 3)))
        self.lwp = child.lwps[0]
        await self.word(ours, 2)
        await self.word(both, 3)
        await self.ask(Exit)
        self.lwp = parent
        await self.ask(Munmap, addr=both, length=PAGE_SIZE)

    async def vmspaces(self) -> None:
        """What its own vmspace holds is written and read across pages, to where it ends."""
        stack = MAP_STACK | MAP_PRIVATE | MAP_FIXED
        await self.ask(VmspaceDestroy, Errno.EINVAL, id=1)
        await self.ask(VmspaceMunmap, Errno.EINVAL, id=1, addr=0, length=PAGE_SIZE)
        await self.ask(VmspaceCreate, id=1)
        one = {"id": 1, "addr": AT, "length": PAGE_SIZE, "offset": 0}
        await self.ask(VmspaceMmap, **one, prot=RW, flags=stack, fd=-1)
        await self.ask(VmspaceMmap, Errno.EINVAL, **one, prot=RW, flags=stack, fd=BOTH)
        await self.ask(VmspaceMmap, Errno.EINVAL, **one, prot=PROT_READ, flags=stack, fd=-1)
        size, text = 3 * PAGE_SIZE, bytes(range(64))
        mid, last, fixed = AT + PAGE_SIZE - 32, AT + size - 32, ANON | MAP_FIXED
        await self.ask(
            VmspaceMmap, id=1, addr=AT, length=size, prot=RW, flags=fixed, fd=-1, offset=0
        )
        error = 0 if self.moves else Errno.EINVAL
        for at, count in ((mid, 64), (last, 32)):
            value = count if self.moves else None
            await self.ask(VmspacePwrite, error, value, id=1, buf=text, offset=at)
            reply = await self.ask(VmspacePread, error, value, id=1, nbyte=64, offset=at)
            assert not self.moves or reply.buf == text[:count], reply.buf
        await self.ask(VmspacePread, Errno.EINVAL, id=1, nbyte=8, offset=-8)
        await self.ask(VmspacePwrite, Errno.EINVAL, id=1, buf=text, offset=-8)
        await self.ask(VmspaceMcontrol, id=1, addr=AT, length=size, behav=MADV_NORMAL)
        await self.ask(VmspaceMcontrol, Errno.EINVAL, id=1, addr=AT, length=size, behav=99)
        await self.ask(VmspaceMunmap, id=1, addr=AT, length=size)
        await self.ask(VmspaceMunmap, Errno.EINVAL, id=1, addr=AT, length=size)
        await self.ask(VmspaceMcontrol, Errno.ENOENT, id=2, addr=0, length=8, behav=MADV_INVAL)
        await self.ask(VmspaceCreate, Errno.EEXIST, id=1)
        await self.ask(VmspaceDestroy, id=1)
        await self.ask(VmspaceDestroy, Errno.ENOENT, id=1)

    async def words(self) -> None:
        """Each instruction of its own: what it gives and what it leaves."""
        ops = (
            store(AT, 5), load(AT), cmpset(AT, 4, 9), load(AT), cmpset(AT, 5, 6), load(AT),
            swap(AT, 12), or_bits(AT, 3), andn_bits(AT, 5), load(AT), load(AT + 8),
        )  # fmt: skip
        reply = await self.ask(CpuOps, ops=ops)
        assert reply.values == (0, 5, 0, 5, 1, 6, 6, 12, 15, 10, 0), reply.values
        await self.ask(CpuOps, Errno.EFAULT, 1, ops=(load(AT), store(AT + PAGE_SIZE, 1)))

    async def others(self) -> None:
        await self.ask(CpuOps, Errno.EFAULT, 1, ops=(load(AT), load(AT + 1)))
        await self.ask(Sysctl, Errno.ENOENT, name="vm.nothing")
        for name in ("vm.stats.vm.v_free_count", "vm.vpagetable_mmap"):
            await self.ask(Sysctl, name=name)
            await self.ask(Sysctl, Errno.EPERM, name=name, new=1)
        await self.ask(Kill, Errno.ESRCH, target=9, signo=1)
        await self.ask(Kill, Errno.EINVAL, target=0, signo=99)
        await self.ask(Kill, target=0, signo=0)
