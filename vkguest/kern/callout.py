"""Waking a sleeping lwp at a time. DragonFly `kern/kern_timeout.c`, as one thread a timeout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import CLOCK, pause

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData


def callout_reset(gd: GlobalData, lp: Lwp, deadline: int) -> None:
    """At virtual time `deadline`, in ns, wake `lp` from whatever it sleeps on."""
    name = f"{gd.kernel.name}.callout{lp.proc.pid}.{lp.tid}"
    gd.kernel.spawn(name, _softclock(gd, lp, deadline), daemon=True)


async def _softclock(gd: GlobalData, lp: Lwp, deadline: int) -> None:
    await pause(max(0, deadline - CLOCK[0]))
    await gd.kernel.sched.unsleep(lp)
