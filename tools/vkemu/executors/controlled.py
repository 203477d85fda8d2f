"""The controlled executor: a bare trampoline over kernel threads, with a virtual clock.

No event loop. Something else - a strategy, a recorded schedule - chooses the next thread at every
effect; this module only knows which threads may be chosen and how a step is taken.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Final

from vkprotocol.effects import CLOCK, CURTHREAD, Body, Effect, Thread, reset_setup

from vkemu.executors.abandon import abandon
from vkemu.executors.announced import may_go_on, no_effect, same_effect
from vkemu.executors.deadlock import Deadlock

Tids = dict[tuple[int, ...], int]
Choose = Callable[[list[int]], int]
LATE: Final = 1 << 16  # steps without time, and it passes


class StepBound(Exception):
    """The execution reached its step bound: neither done nor wrong."""


class Execution:
    """One execution of one program: its threads and which of them may take the next step.

    Invariant: `runnable` is sorted and holds exactly the tids of the threads that are not done and
    whose pending effect has no guard, a guard that holds, or a deadline that has passed.
    """

    failed_too: tuple[Thread, ...] = ()  # in the same step as `failed`
    late = False  # what a step touches is known only after it was taken: see `worlds`
    _late, _moved = LATE, 0  # see `goes_on`

    def __init__(self, tids: Tids | None = None) -> None:
        reset_setup()
        # Kept from one execution to the next, so that a thread has the same tid in all of them.
        self.tids: Tids = {} if tids is None else tids
        self.threads: dict[int, Thread] = {}
        self.runnable: list[int] = []
        self.alive = 0  # threads not done and not daemons
        self.left = 0  # threads not done
        self.roots = 0
        self.checking = False
        # Until somebody takes note of it. One without an error has something to say: see `Run`.
        self.failed: Thread | None = None
        self.on_spawn: Callable[[Thread], None] | None = None
        # While true, `runnable` and the waiters of objects are not kept: see `replay`.
        self.deferred = False

    def spawn(self, name: str, coro: Body, *, daemon: bool = False) -> Thread:
        """Start a thread: it runs up to its first effect at once, as part of the spawner's step."""
        parent = CURTHREAD[0]
        if parent is None:
            path: tuple[int, ...] = (self.roots,)
            self.roots += 1
        else:
            path = (*parent.path, parent.children)
            parent.children += 1
        tid = self._number(path)
        thread = Thread(tid, name, coro, path, daemon=daemon)
        if self.checking:
            thread.held = []
        self.threads[tid] = thread
        self.alive += not daemon
        self.left += 1
        if self.on_spawn is not None:
            self.on_spawn(thread)
        CURTHREAD[0] = thread
        try:
            effect: object = coro.send(None)  # type: ignore[arg-type]
            if not isinstance(effect, Effect):
                self._fail(thread, no_effect(effect))
            elif self.deferred:
                thread.pending = effect
            else:
                self._await(thread, effect)
        except StopIteration:
            self._end(thread)
        except BaseException as error:
            self._fail(thread, error)
        CURTHREAD[0] = parent
        return thread

    def _number(self, path: tuple[int, ...]) -> int:
        """The tid of the thread at this place of the spawn tree."""
        return self.tids.setdefault(path, len(self.tids))

    def respawn(self, thread: Thread, name: str, coro: Body) -> None:
        """As `spawn`, for a set-up that spawns the same threads again: `thread` is the one that
        an earlier, finished execution had in this place. Only while `deferred`."""
        self.roots += 1
        thread.name = name
        thread.coro = coro
        thread.runnable = False
        thread.done = False
        thread.error = None
        thread.held = [] if self.checking else None
        if thread.tokens:
            thread.tokens = []
        thread.born = 0
        thread.children = 0
        self.threads[thread.tid] = thread
        CURTHREAD[0] = thread
        try:
            effect: object = coro.send(None)  # type: ignore[arg-type]
            if isinstance(effect, Effect):
                thread.pending = effect
            else:
                self._fail(thread, no_effect(effect))
        except StopIteration:
            self._end(thread)
        except BaseException as error:
            self._fail(thread, error)
        CURTHREAD[0] = None

    def step(self, tid: int) -> bool:
        """Let thread `tid`, which must be runnable, take its step. False when it failed."""
        thread = self.threads[tid]
        effect = thread.pending
        obj = effect.obj  # type: ignore[union-attr] # before the step: it may be computed
        CURTHREAD[0] = thread
        try:
            upcoming = thread.coro.send(thread)
            if effect.guard is None and upcoming.guard is None:  # type: ignore[union-attr]
                thread.pending = upcoming
            else:
                self._leave(thread, effect)  # type: ignore[arg-type]
                self._await(thread, upcoming)
        except StopIteration:
            if effect.guard is not None:  # type: ignore[union-attr]
                self._leave(thread, effect)  # type: ignore[arg-type]
            self._end(thread)
        except BaseException as error:
            self._stop(thread, effect, error)  # type: ignore[arg-type]
        if obj.waiters:
            self._recheck(obj.waiters)
        return self.failed is None

    def wander(self, bits: Callable[[int], int], schedule: list[int], limit: int) -> bool:
        """Random steps, noted in `schedule`, until nothing can run, or as many as `limit`.

        False when a thread failed. `bits` is a generator's getrandbits. `step` spelt out, since a
        call costs as much as a choice.
        """
        threads = self.threads
        runnable = self.runnable
        current = CURTHREAD
        note = schedule.append
        for _ in range(limit):
            if not runnable:
                break
            tid = runnable[bits(24) * len(runnable) >> 24]
            note(tid)
            thread = threads[tid]
            effect = thread.pending
            obj = effect.obj  # type: ignore[union-attr]
            current[0] = thread
            try:
                upcoming = thread.coro.send(thread)
                if effect.guard is None and upcoming.guard is None:  # type: ignore[union-attr]
                    thread.pending = upcoming
                else:
                    self._leave(thread, effect)  # type: ignore[arg-type]
                    self._await(thread, upcoming)
            except StopIteration:
                if effect.guard is not None:  # type: ignore[union-attr]
                    self._leave(thread, effect)  # type: ignore[arg-type]
                self._end(thread)
            except BaseException as error:
                self._stop(thread, effect, error)  # type: ignore[arg-type]
            if obj.waiters:
                self._recheck(obj.waiters)
            if self.failed is not None:  # this thread, or one it spawned
                return False
        return True

    def descend(
        self,
        schedule: list[int],
        effects: list[Effect],
        untried: list[list[int]],
        candidates: list[int],
        limit: int,
    ) -> bool:
        """Steps of the first runnable thread, noted with their effects and with who else could have
        gone, until nothing can run, or as many as `limit`. False when a thread failed.

        The first step is one of `candidates`, when there are any.

        `step` spelt out, as in `wander`.
        """
        threads = self.threads
        runnable = self.runnable
        current = CURTHREAD
        candidates = candidates or runnable
        for _ in range(limit):
            if not candidates:
                break
            tid = candidates[0]
            thread = threads[tid]
            effect = thread.pending
            schedule.append(tid)
            effects.append(effect)  # type: ignore[arg-type]
            untried.append(candidates[1:])
            candidates = runnable
            obj = effect.obj  # type: ignore[union-attr]
            current[0] = thread
            try:
                upcoming = thread.coro.send(thread)
                if effect.guard is None and upcoming.guard is None:  # type: ignore[union-attr]
                    thread.pending = upcoming
                else:
                    self._leave(thread, effect)  # type: ignore[arg-type]
                    self._await(thread, upcoming)
            except StopIteration:
                if effect.guard is not None:  # type: ignore[union-attr]
                    self._leave(thread, effect)  # type: ignore[arg-type]
                thread.pending = None
                thread.done = True
                thread.runnable = False
                runnable.remove(tid)
                self.left -= 1
                self.alive -= not thread.daemon
            except BaseException as error:
                self._stop(thread, effect, error)  # type: ignore[arg-type]
            if obj.waiters:
                self._recheck(obj.waiters)
            if self.failed is not None:  # this thread, or one it spawned
                return False
        return True

    def replay(self, schedule: list[int], effects: list[Effect], start: int, stop: int) -> int:
        """Take steps `start` to `stop` of a schedule again, without asking which could be taken.

        Only while `deferred`; `settle` ends it. Returns the position of the first step whose
        pending effect is not the recorded one, else `stop`.
        """
        threads = self.threads
        current = CURTHREAD
        for position in range(start, stop):
            effect = effects[position]
            try:
                thread = threads[schedule[position]]
            except KeyError:
                return position
            if thread.pending is not effect and not same_effect(thread.pending, effect):
                return position
            current[0] = thread
            try:
                thread.pending = thread.coro.send(thread)
            except StopIteration:
                thread.pending = None
                thread.done = True
            except BaseException as error:
                self._fail(thread, error)
        return stop

    def effect_of(self, tid: int) -> Effect | None:
        """Of the step of thread `tid` that is about to be taken, or was, where it is `late`."""
        return self.threads[tid].pending

    def settle(self) -> None:
        """Find out who is left and who can run, after a build or a replay that was `deferred`."""
        self.deferred = False
        runnable = self.runnable
        assert not runnable
        left = daemons = 0
        for tid, thread in self.threads.items():
            effect = thread.pending
            if effect is None:
                continue
            try:
                guard = effect.guard
            except AttributeError:  # no effect: the thread has failed, when its step was new
                thread.pending = None
                thread.done = True
                continue
            left += 1
            if thread.daemon:
                daemons += 1
            if guard is None:
                thread.runnable = True
                runnable.append(tid)
            else:
                self._await(thread, effect)
        runnable.sort()
        self.left = left
        self.alive = left - daemons

    def _await(self, thread: Thread, effect: Effect) -> None:
        thread.pending = effect
        guard = effect.guard
        if guard is None:
            runnable = True
        else:
            obj = effect.obj
            if obj.waiters is None:
                obj.waiters = []
            obj.waiters.append(thread)
            runnable = may_go_on(effect, obj.state)
        self._mark(thread, runnable)

    def divert(self, thread: Thread, effect: Effect) -> None:
        """The next step of a thread that waits for its turn is another."""
        pending = thread.pending
        assert pending is not None
        if self.deferred:
            thread.pending = effect
        else:
            self._leave(thread, pending)
            self._await(thread, effect)

    def _leave(self, thread: Thread, effect: Effect) -> None:
        if effect.guard is not None:
            assert effect.obj.waiters is not None
            effect.obj.waiters.remove(thread)

    def _stop(self, thread: Thread, effect: Effect, error: BaseException) -> None:
        """The step of `effect` raised `error`."""
        if effect.guard is not None and thread.pending is effect:
            self._leave(thread, effect)
        raised_in = error.__traceback__
        here = raised_in is not None and raised_in.tb_next is None
        if isinstance(error, AttributeError) and here:
            self._fail(thread, no_effect(error.obj))  # raised here, by what it awaits
        else:
            self._fail(thread, error)

    def _fail(self, thread: Thread, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        self._end(thread)
        thread.error = error
        if self.failed is None or self.failed.error is None:  # the first of this step
            self.failed = thread
        else:
            self.failed_too += (thread,)

    def _end(self, thread: Thread) -> None:
        thread.pending = None
        thread.done = True
        self.alive -= not thread.daemon
        self.left -= 1
        if thread.runnable:
            thread.runnable = False
            self.runnable.remove(thread.tid)

    def _mark(self, thread: Thread, runnable: bool) -> None:
        if runnable is not thread.runnable:
            thread.runnable = runnable
            if runnable:
                insort(self.runnable, thread.tid)
            else:
                self.runnable.remove(thread.tid)

    def _recheck(self, waiters: list[Thread]) -> None:
        for thread in waiters:
            effect = thread.pending
            assert effect is not None
            runnable = may_go_on(effect, effect.obj.state)
            if runnable is not thread.runnable:
                self._mark(thread, runnable)

    def advance(self) -> bool:
        """Move the clock to the earliest deadline. False when there is none, or when only daemons
        are left."""
        if self.alive == 0:
            return False
        timed = [
            (t, t.pending.deadline)
            for t in self.threads.values()
            if t.pending is not None
            and t.pending.deadline is not None
            and t.pending.deadline > CLOCK[0]
        ]
        if not timed:
            return False
        CLOCK[0] = min(deadline for _, deadline in timed)
        self._recheck([thread for thread, _ in timed])
        return True

    def goes_on(self, steps: int) -> bool:
        """Whether another step can be taken, after so many.

        The clock moves when none can. It also does after LATE steps in which one could, and after
        some more again: who spins until a sleeper has done its work would else spin for ever.
        """
        if not self.runnable and not self.advance():
            return False
        if steps >= self._late:
            soon = 1 << 10
            spins = CLOCK[0] == self._moved
            if spins:
                self.advance()
            self._moved, self._late = CLOCK[0], steps + (soon if spins else LATE)
        return True

    def deadlock(self) -> Deadlock | None:
        """Who waits for what, when nothing can run and threads are left; None at a proper end."""
        if self.alive == 0:
            return None
        stuck = [t for _, t in sorted(self.threads.items()) if not t.done and not t.daemon]
        return Deadlock.of(stuck, self.threads)

    def run(self, choose: Choose, max_steps: int) -> None:
        """Run to the end, asking `choose` for one of the runnable tids before every step.

        Raises Deadlock, StepBound, or whatever a thread raised.
        """
        for step in range(max_steps):
            if (not self.runnable or step >= self._late) and not self.goes_on(step):
                break
            if not self.step(choose(self.runnable)):
                break
        else:
            if self.failed is None and (self.runnable or self.advance()):
                raise StepBound(f"no end within {max_steps} steps")
        if self.failed is not None:
            assert self.failed.error is not None
            raise self.failed.error
        deadlock = self.deadlock()
        if deadlock is not None:
            raise deadlock

    def close(self) -> None:
        """Drop what is left of the coroutines without running their cleanup."""
        CURTHREAD[0] = None
        for thread in self.threads.values():
            if not thread.done:
                thread.done = True
                abandon(thread)
