"""What host programs ask for and are answered, as events: ktrace(1) of whatever concerns memory.

A vkernel is a host program, too; and so is what only has memory of its own, which a check outside
can know. DragonFly sys/kern/kern_ktrace.c:ktrsyscall, ktrsysret.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeAlias

from vkprotocol import messages as msg
from vkprotocol.mman import MAP_ANON
from vkprotocol.param import round_page

from vkhost.kern.user_calls import Fork, Mlock, Mprotect, Munlock

if TYPE_CHECKING:
    from vkhost.kern.lwp import Lwp

Errno = int
Traced: TypeAlias = (
    msg.Mmap | msg.Munmap | msg.Madvise | msg.Msync | Mprotect | Mlock | Munlock | Fork
)


async def ktrace(
    lwp: Lwp, m: Traced, call: Awaitable[Errno | tuple[Errno, int]]
) -> tuple[Errno, int]:
    """`call`, told before and after; (errno, value). Of an unlinked file, as the memory image of a
    vkernel is, nobody else knows what is in it: that it is mapped is all that is told."""
    emit = lwp.proc.kernel.emit
    who, name = str(lwp.proc.pid), type(m).__struct_config__.tag
    addr, length = (0, 0) if isinstance(m, Fork) else (m.addr, m.length)
    prot = m.prot if isinstance(m, (msg.Mmap, Mprotect)) else 0
    flags = m.flags if isinstance(m, msg.Mmap) else 0
    value = m.behav if isinstance(m, msg.Madvise) else 0
    emit("user.call", who, lwp.tid, name, addr, addr + round_page(length), prot, flags, value)
    file = lwp.proc.files.get(m.fd) if isinstance(m, msg.Mmap) and not flags & MAP_ANON else None
    if isinstance(m, msg.Mmap) and file is not None and not file.vnode.unlinked:
        emit("user.file", who, lwp.tid, file.vnode.name, m.offset)
    answer = await call
    errno, value = answer if isinstance(answer, tuple) else (answer, 0)
    emit("user.return", who, lwp.tid, name, int(errno), value)
    return errno, value
