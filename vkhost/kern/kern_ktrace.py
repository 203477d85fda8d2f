"""What host programs ask for and are answered, as events: ktrace(1) of whatever concerns memory.

A vkernel is a host program, too; and so is what only has memory of its own, which a check outside
can know. DragonFly sys/kern/kern_ktrace.c:ktrsyscall, ktrsysret.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from vkprotocol import messages as msg
from vkprotocol.param import round_page

if TYPE_CHECKING:
    from vkhost.kern.lwp import Lwp

Errno = int


async def ktrace(
    lwp: Lwp,
    m: msg.Mmap | msg.Munmap | msg.Madvise,
    call: Awaitable[Errno | tuple[Errno, int]],
) -> tuple[Errno, int]:
    """`call`, told before and after; (errno, value)."""
    emit = lwp.proc.kernel.emit
    who, name = str(lwp.proc.pid), type(m).__struct_config__.tag
    prot, flags = (m.prot, m.flags) if isinstance(m, msg.Mmap) else (0, 0)
    value = m.behav if isinstance(m, msg.Madvise) else 0
    end = m.addr + round_page(m.length)
    emit("user.call", who, lwp.tid, name, m.addr, end, prot, flags, value)
    answer = await call
    errno, value = answer if isinstance(answer, tuple) else (answer, 0)
    emit("user.return", who, lwp.tid, name, int(errno), value)
    return errno, value
