"""`timers = "any"`: time may pass while threads can run.

Under plain control the clock moves only when nobody can take a step, so a timeout never races with
what it guards against. Here the clock is one more thread: it can go whenever somebody waits with a
deadline, and its step takes the clock to the earliest one. So the schedule decides, and replays.
"""

from __future__ import annotations

from vkprotocol.effects import CLOCK, Body, Effect, Shared, Thread, is_true, perform

from vkemu.executors.controlled import Execution, Tids


class AnyTimer(Execution):
    """Invariant: between steps `pending.state` says whether a deadline lies ahead and matters."""

    def __init__(self, tids: Tids | None = None) -> None:
        super().__init__(tids)
        self.pending = Shared("clock", False)
        self.spawn("clock", self._clock(), daemon=True)

    def spawn(self, name: str, coro: Body, *, daemon: bool = False) -> Thread:
        thread = super().spawn(name, coro, daemon=daemon)
        self._look()
        return thread

    def step(self, tid: int) -> bool:
        thread = self.threads[tid]
        before = thread.pending
        went = super().step(tid)
        after = thread.pending
        if after is None or after.deadline is not None or (before and before.deadline is not None):
            self._look()
        return went

    def advance(self) -> bool:
        moved = super().advance()
        self._look()
        return moved

    async def _clock(self) -> None:
        tick = Effect(self.pending, "tick", write=True, guard=is_true)
        while True:
            await perform(tick)
            ahead = self._ahead()
            CLOCK[0] = min(deadline for _, deadline in ahead)
            self._recheck([thread for thread, _ in ahead])
            self.pending.state = bool(self._ahead())

    def _ahead(self) -> list[tuple[Thread, int]]:
        return [
            (thread, thread.pending.deadline)
            for thread in self.threads.values()
            if thread.pending is not None
            and thread.pending.deadline is not None
            and thread.pending.deadline > CLOCK[0]
        ]

    def _look(self) -> None:
        # Once only daemons are left the run is over, whatever they still wait for.
        self.pending.state = self.alive > 0 and bool(self._ahead())
        if self.pending.waiters:
            self._recheck(self.pending.waiters)
