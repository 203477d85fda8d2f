"""The books of a run while it goes on: at moments when nobody is in the host kernel.

Those come by themselves, whenever a system call has ended and every other kernel thread waits for
something to do or is in user mode; no schedule is changed to have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from vkprotocol.effects import CURTHREAD, Shared, Thread

from vkemu.books.host import Books

PAUSE: Final = 1000  # events from one look to the next
USER_MODE: Final = "_user_mode"  # trap.py


class QuietBooks:
    """`threads` are those of the host kernel; `ended` is to be called when a system call has."""

    def __init__(self, books: Books, threads: Sequence[Thread]) -> None:
        kernel = books.kernel
        self.books = books
        self.threads = threads
        self.looks = 0
        self._next = PAUSE
        daemon = kernel.pagedaemon
        waiting: list[Shared] = [daemon.vm_pages_needed_chan, daemon.vm_pagedaemon_time_chan]
        waiting += [box for cpu in kernel.cpus for box in (cpu.ipi, cpu.faults)]
        waiting += [lwp.requests for proc in kernel.procs for lwp in proc.lwps]
        self._idle = {id(obj) for obj in waiting}

    def ended(self, *_: Any) -> None:
        shadow = self.books.shadow
        assert shadow is not None
        if shadow.step >= self._next and self._quiet():
            self._next = shadow.step + PAUSE
            self.looks += 1
            self.books.check(guests=False)

    def _quiet(self) -> bool:
        me = CURTHREAD[0]
        return all(
            t is me or t.pending is None or id(t.pending.obj) in self._idle or _in_user_mode(t)
            for t in self.threads
        )


def _in_user_mode(thread: Thread) -> bool:
    """Executing the guest's instructions, with no fault of its under way: that is another
    thread's."""
    inner: Any = thread.coro
    while inner is not None:
        code = getattr(inner, "cr_code", None)
        if code is None:
            return False
        if code.co_name == USER_MODE:
            return True
        inner = inner.cr_await
    return False
