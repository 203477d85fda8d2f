"""The smallest failing execution: the fewest preemptions, then the fewest steps.

All states within 0 preemptions, then all that one more leads to, and so on (the order of Musuvathi
and Qadeer's iterative context bounding), each of them once. A state is the Mazurkiewicz trace that
leads to it, by a hash, with the thread that went last: so interleavings that only differ in the
order of independent steps are one. A prefix is replayed for every state that is a fork.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from vkprotocol.effects import CLOCK, Effect

from vkemu.exploration.failure.budget import Budget
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.run import Run


class Link(NamedTuple):
    """A schedule, from its end; and the state it leads to."""

    before: Link | None
    tid: int
    state: tuple[int, int]

    def schedule(self) -> list[int]:
        tids = []
        link: Link | None = self
        while link is not None:
            tids.append(link.tid)
            link = link.before
        return tids[::-1]


class Shape:
    """The hash of the trace so far. Equal traces have equal hashes, whatever their order was."""

    __slots__ = ("late", "loads", "objects", "threads", "trace", "writes")

    def __init__(self, objects: Objects, *, late: bool = False) -> None:
        self.objects = objects
        self.late = late  # footprints are known only after a step
        self.trace = 0
        self.threads: dict[int, int] = {}  # by thread: its last event
        self.writes: dict[int, int] = {}  # by object: its last write
        self.loads: dict[int, int] = {}  # by object: all loads since

    def event(self, tid: int, effect: Effect) -> int:
        """The hash of what thread `tid` is about to do: of all that happens before it."""
        past: tuple[int, ...] = (tid, self.threads.get(tid, 0))
        for code in self.objects.footprint(effect):
            number = code >> 1
            past += (code, self.writes.get(number, 0))
            if code & 1:
                past += (self.loads.get(number, 0),)
        return hash(past)

    def take(self, tid: int, effect: Effect) -> None:
        event = self.event(tid, effect)
        self.trace ^= event
        self.threads[tid] = event
        for code in self.objects.footprint(effect):
            number = code >> 1
            if code & 1:
                self.writes[number] = event
                self.loads[number] = 0
            else:
                self.loads[number] = self.loads.get(number, 0) ^ event

    def waited(self) -> None:
        """Time has passed: what comes happens after everything."""
        for tid in self.threads:
            self.threads[tid] = hash((self.threads[tid], self.trace))
        self.trace ^= hash((-1, CLOCK[0]))

    def after(self, tid: int, effect: Effect) -> tuple[int, int]:
        """The state that this step would lead to; where only the step can tell, the choice."""
        if self.late:
            return hash((self.trace, tid)), tid
        return self.trace ^ self.event(tid, effect), tid


class Fewest:
    """The search, level by level."""

    def __init__(self, run: Run, wanted: Callable[[Run], bool], budget: Budget) -> None:
        self.run = run
        self.wanted = wanted  # whether an execution that failed is what is looked for
        self.budget = budget
        self.over = False  # the budget is
        self.seen: set[tuple[int, int]] = set()
        self.forks: deque[Link | None] = deque([None])  # of this level
        self.further: deque[Link | None] = deque()  # of the next

    def level(self, longest: int) -> list[int] | None:
        """The shortest failing schedule with one more preemption than before, if there is one."""
        run = self.run
        run.max_steps = longest
        best: list[int] | None = None
        while self.forks:
            if self.over or self.budget.exhausted(self.states()):
                self.over = True
                break
            fork = self.forks.popleft()
            if fork is not None:
                if fork.state in self.seen:
                    continue
                self.seen.add(fork.state)
            run.begin()
            self._walk(fork)
            run.finish()
            self.budget.exact -= len(run.schedule)
            if run.error is not None and self.wanted(run):
                best = list(run.schedule)
                run.max_steps = len(best) - 1
                if not best or run.bound_fails:
                    break
        self.forks, self.further = self.further, deque()
        return best

    def states(self) -> int:
        """How many are remembered, about: a fork is one, and seen or not."""
        return len(self.seen) + len(self.forks) + len(self.further)

    def _walk(self, fork: Link | None) -> None:
        """From a fork on with as few preemptions as can be, noting the other ways."""
        run = self.run
        execution = run.execution
        shape = Shape(run.program.numbers, late=execution.late)
        schedule = run.schedule
        going = run.settle()
        again = fork.schedule() if fork is not None else []
        here = fork
        look_steps = 32  # between looks at the budget
        while going:
            if not execution.runnable:
                if not execution.advance():
                    return
                shape.waited()
            if len(schedule) >= run.max_steps:
                run.cut = True
                return
            if not len(schedule) % look_steps and self.budget.exhausted(self.states()):
                self.over = run.blocked = True
                return
            if len(schedule) < len(again):
                tid = again[len(schedule)]
                effect = execution.threads[tid].pending
                assert effect is not None
            else:
                tid, effect, link = self._choose(shape, here)
                if len(schedule) >= len(again) and link.state in self.seen:
                    run.blocked = True
                    return
                self.seen.add(link.state)
                here = link
            schedule.append(tid)
            if not execution.late:
                shape.take(tid, effect)
            going = execution.step(tid) or not run.thread_failed()
            if execution.late:
                shape.take(tid, effect)
            if going and run.watched:
                going = run.watch()

    def _choose(self, shape: Shape, here: Link | None) -> tuple[int, Effect, Link]:
        """Who goes on; the others are forks, of this level when that takes no preemption."""
        threads = self.run.execution.threads
        runnable = self.run.execution.runnable
        last = here.tid if here is not None else -1
        free = last < 0 or not threads[last].runnable
        chosen = runnable[0] if free else last
        found: tuple[int, Effect, Link] | None = None
        for tid in runnable:
            effect = threads[tid].pending
            assert effect is not None
            link = Link(here, tid, shape.after(tid, effect))
            if tid == chosen:
                found = tid, effect, link
            elif link.state not in self.seen:
                (self.forks if free else self.further).append(link)
        assert found is not None
        return found
