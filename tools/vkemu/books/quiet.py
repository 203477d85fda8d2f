"""The books of a run while it goes on: at moments when nobody is in a kernel.

Those come by themselves: a system call has ended, and every other thread of the host kernel waits
for something to do or is in user mode; a vCPU begins to run a program, and the guest's others run
one too or have nothing to do. No schedule is changed to have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vkprotocol.effects import CURTHREAD, Shared, Thread

from vkemu.books.host import Books


class QuietBooks:
    """`host`: the threads of its kernel; `guests`: those of each, in the order of the books'.
    `syscall_end` and `run_enter` are to be called with these events."""

    def __init__(self, books: Books, host: Sequence[Thread], guests: list[list[Thread]]) -> None:
        kernel = books.kernel
        assert books.shadow is not None
        self.books = books
        self.shadow = books.shadow
        self.host = host
        self.guests = guests
        self.looks = [0] * (len(guests) + 1)  # those at the host come first
        self._pause = [1000, *[1500 for _ in guests]]  # events to the next look at the same books
        self._next = [*self._pause]
        daemon = kernel.pagedaemon
        waiting: list[Shared] = [daemon.vm_pages_needed_chan, daemon.vm_pagedaemon_time_chan]
        waiting += [box for cpu in kernel.cpus for box in (cpu.ipi, cpu.faults)]
        self._idle = {id(obj) for obj in waiting}

    def syscall_end(self, *_: Any) -> None:
        if self.shadow.step >= self._next[0] and self._quiet():
            self._look(0, self.books.check_host)

    def run_enter(self, *_: Any) -> None:
        # While the host runs a program for it, and while it has nothing to do.
        outside = ("vmspace_run", "choose", "_parent", "_softclock")
        for n, threads in enumerate(self.guests, 1):
            if self.shadow.step >= self._next[n] and all(
                t.done or _within(t, outside) for t in threads
            ):
                self._look(n, partial(self.books.check_guest, self.books.guests[n - 1]))

    def _look(self, which: int, check: Callable[[], None]) -> None:
        self._next[which] = self.shadow.step + self._pause[which]
        self.looks[which] += 1
        check()

    def _quiet(self) -> bool:
        me = CURTHREAD[0]
        user_mode = ("_user_mode",)
        return all(t is me or self._waits(t) or _within(t, user_mode) for t in self.host)

    def _waits(self, thread: Thread) -> bool:
        """For something to do, or it has ended."""
        effect = thread.pending
        if effect is None:
            return True
        asked = effect.obj.key[:1] == ("requests",)  # of an lwp: a process may come later
        return effect.guard is not None and (asked or id(effect.obj) in self._idle)


def _within(thread: Thread, names: tuple[str, ...]) -> bool:
    """Is one of these functions what the thread is in, at whatever depth? A fault that user mode
    causes is another thread's."""
    inner: Any = thread.coro
    while inner is not None:
        code = getattr(inner, "cr_code", None)
        if code is None:
            return False
        if code.co_name in names:
            return True
        inner = inner.cr_await
    return False
