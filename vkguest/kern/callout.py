"""Waking a sleeping lwp at a time. DragonFly `kern/kern_timeout.c`, as one thread a timeout.

A callout has a verifier, the address of its originator's structure, by which softclock_handler
finds out whether that has been ripped out. A kernel's structures lie above all user addresses;
those of a vkernel, whose memory is a process's, do not, so that the patch compiles that test out
under _KERNEL_VIRTUAL. Before it, the first callout of a vkernel was its last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import CLOCK, pause
from vkprotocol.param import KERNEL_KVA_START, PAGE_SIZE, VM_MAX_USER_ADDRESS

from vkguest.kern.errors import GuestPanic

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData


def callout_reset(gd: GlobalData, lp: Lwp, deadline: int) -> None:
    """At virtual time `deadline`, in ns, wake `lp` from whatever it sleeps on."""
    name = f"{gd.kernel.name}.callout{lp.proc.pid}.{lp.tid}"
    gd.kernel.spawn(name, _softclock(gd, lp, deadline), daemon=True)


def verifier_of(lp: Lwp) -> int:
    """Where the struct callout of an lwp is: in its page of the guest kernel's memory."""
    return KERNEL_KVA_START + lp.proc.pid * PAGE_SIZE + lp.tid * 64


def check_verifier(gd: GlobalData, verifier: int) -> None:
    """kern_timeout.c:softclock_handler, before the function of the callout is called."""
    if gd.kernel.quirks.callout_verifier_check and verifier < VM_MAX_USER_ADDRESS:
        raise GuestPanic(f"{gd.kernel.name}: _callout verifier {verifier:#x} failed")


async def _softclock(gd: GlobalData, lp: Lwp, deadline: int) -> None:
    await pause(max(0, deadline - CLOCK[0]))
    check_verifier(gd, verifier_of(lp))
    await gd.kernel.sched.unsleep(lp)
