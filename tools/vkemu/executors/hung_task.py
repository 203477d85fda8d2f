"""Threads of a live host that wait for ever.

While guests may still ask for something the executor cannot call a wait a deadlock: mail may come.
But a thread that waits for none of that, and for no time either, waits for another thread. So one
looks every second, as Linux's `kernel/hung_task.c` does: it is a deadlock when such a wait goes on
while nobody but daemons has moved for STILL looks, or for PATIENT looks whatever the others do.
Looks are counted and not seconds, so that a process that was stopped is not blamed for it.

An lwp that waits for its fault is where the fault is: the CPU's fault worker may itself wait for
memory, a second at a time, until the page daemon has made some or killed somebody for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from vkprotocol.effects import Mailbox, Shared, Thread

from vkemu.executors.deadlock import Deadlock

if TYPE_CHECKING:
    from vkemu.executors.live import Live

LOOK_SECONDS: Final = 1.0
STILL: Final = 5
PATIENT: Final = 120


class HungTasks:
    """What was seen at the looks so far. `fed` are the Mailboxes into which the outside posts;
    `served` says which thread alone sends into a Mailbox, if it is known."""

    def __init__(self, live: Live, every: float = LOOK_SECONDS) -> None:
        self.live = live
        self.every = every
        self.fed: set[Mailbox] = set()
        self.served: dict[Shared, Thread] = {}
        self._seen: dict[int, tuple[object, int]] = {}  # where it waits, and for how many looks
        self._still = 0

    async def watch(self) -> None:
        while not self.live.over:
            await anyio.sleep(self.every)
            hung = self.look()
            if hung:
                self.live.stop(Deadlock.of(hung, self.live.threads))

    def look(self) -> list[Thread]:
        """The threads that will not go on, if it is clear by now."""
        seen: dict[int, tuple[object, int]] = {}
        moved = False
        waiting: list[tuple[Thread, int]] = []
        for tid, thread in sorted(self.live.threads.items()):
            if thread.daemon or thread.done:
                continue
            last = self._behind(thread)
            since = self.live.waiting_since(last)
            where = None if since is None else (last.tid, since)
            before, looks = self._seen.get(tid, (None, 0))
            if where is None or where != before:
                moved = True
                looks = 0
            if where is not None:
                seen[tid] = where, looks + 1
                if self._for_a_thread(last):
                    waiting.append((thread, looks))
        moved = moved or seen.keys() != self._seen.keys()
        self._seen = seen
        self._still = 0 if moved else self._still + 1
        bound = 1 if self._still >= STILL else PATIENT
        return [thread for thread, looks in waiting if looks >= bound]

    def _behind(self, thread: Thread) -> Thread:
        """Who is to move so that `thread` can: itself, or who serves what it waits for."""
        while thread.pending is not None:
            server = self.served.get(thread.pending.obj)
            if server is None or server is thread or thread.runnable:
                break
            thread = server
        return thread

    def _for_a_thread(self, thread: Thread) -> bool:
        """Whether nobody but another thread can end its wait."""
        effect = thread.pending
        return effect is not None and effect.deadline is None and effect.obj not in self.fed
