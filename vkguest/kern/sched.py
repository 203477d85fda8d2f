"""Which lwp runs next on a vCPU, and who sleeps on what.

DragonFly `kern/usched_*.c` and `kern/kern_synch.c`. A kernel function here does not sleep inside:
the lwp is put on a sleep queue with its program counter still at the system call (or fault), and
starts it again when woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from vkprotocol.effects import Lock, Mailbox
from vkprotocol.guarded import guarded_by

from vkguest.kern.lockorder import SCHED_LOCK

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData


PPWAIT: Final = "ppwait"  # what the parent of a vfork sleeps on, without PCATCH


class Runnable(Protocol):
    """An lwp, or a kernel thread: what a vCPU can run until it gives the CPU up."""

    async def run(self, gd: GlobalData) -> None: ...

    async def switch_out(self) -> None:
        """swtch.s: what a vCPU has of it that another would not find."""
        ...


@guarded_by("lock", "sleepq")
class Scheduler:
    """One run queue for all vCPUs, first in first out. `lock` covers the sleep queues."""

    def __init__(self, name: str) -> None:
        self.runq = Mailbox((name, "runq"))
        self.lock = Lock((name, "sleepq"), SCHED_LOCK)
        self.sleepq: dict[str, list[Lwp]] = {}

    async def setrunqueue(self, thread: Runnable) -> None:
        """From here on another vCPU may run it."""
        await thread.switch_out()
        await self.runq.send(thread)

    async def choose(self) -> Runnable | None:
        """The next to run; blocks while there is none. None: the system goes down."""
        thread: Runnable | None = await self.runq.recv()
        return thread

    async def shutdown(self, ncpus: int) -> None:
        for _ in range(ncpus):
            await self.runq.send(None)

    async def tsleep(self, lp: Lwp, wchan: str) -> None:
        """From here on a wakeup may run `lp` on another vCPU: its caller must be done with it, and
        must hold the lock of the condition it sleeps for.

        A dying process does not sleep. Whoever kills it sets the flag first and looks for sleepers
        then, so one of the two sees the other.
        """
        await lp.switch_out()
        async with self.lock:
            dying = await lp.proc.dying.load()
            if not dying:
                lp.wchan = wchan
                self.sleepq.setdefault(wchan, []).append(lp)
        if dying:
            await self.runq.send(lp)

    async def wakeup(self, wchan: str) -> None:
        async with self.lock:
            woken = self.sleepq.pop(wchan, [])
            for lp in woken:
                lp.wchan = ""
        for lp in woken:
            await self.runq.send(lp)

    async def unsleep(self, lp: Lwp, *, signal: bool = False) -> None:
        """Wake one lwp, whatever it sleeps on: it has been killed. But who sleeps without PCATCH is
        not woken by a `signal`."""
        async with self.lock:
            wchan = "" if signal and lp.wchan.startswith(PPWAIT) else lp.wchan
            if wchan:
                lp.wchan = ""
                self.sleepq[wchan].remove(lp)
        if wchan:
            await self.runq.send(lp)
