"""Executions whose footprints are known only after a step: the second front of the reductions.

A step of a kernel announces what it touches; what a task of an event loop touches before its next
checkpoint nobody can say before it got there. What changes:

* an event is added to the trace once it was taken, with the events that it had to come after
  whatever it touches (it was woken by one of them);
* the second event of a reversed race is taken to touch, in its new place, what it touched in the
  old one. That is a guess: until it reads something that differs it does the same. Of several steps
  that it would conflict with there, it conflicts in its old place with all, when what it came after
  was the one it comes upon last: so a guess may be asked about steps that were taken, but is no
  answer about itself. See `Guesses`;
* threads that wait have no races of their own: whoever wakes them has;
* what could have come before an event, and never came (a deadline that was put off, a callback that
  was cancelled), the execution says itself: `might`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from vkprotocol.effects import Effect, key_text

from vkemu.executors.controlled import Execution
from vkemu.exploration.reduction.footprint import Footprint, Race, dependent
from vkemu.exploration.reduction.trace import Trace
from vkemu.exploration.reduction.wakeup import Node, Reversals, Tree
from vkemu.exploration.result import Unseen

if TYPE_CHECKING:
    from vkemu.exploration.reduction.frontier import Step, Touched
    from vkemu.exploration.reduction.reduction import Reduction
    from vkemu.exploration.run import Run


def extend(self: Reduction, run: Run) -> None:
    """New steps, until the execution is over."""
    self.late = True
    execution: Any = run.execution
    trace = self.trace
    runnable = execution.runnable
    sleep = self.sleep
    tree = self.tree
    last = -1
    while runnable and len(trace) < run.max_steps:
        tid, below = chosen(tree, sleep, runnable, last)
        if tid < 0:
            run.blocked = True
            break
        effect = execution.threads[tid].pending
        going = execution.step(tid)
        turn = execution.taken
        self.sleeps.append(sleep)
        self.trees.append(tree)
        trace.add_after(tid, effect, turn.codes, turn.must, execution.births)
        if sleep:
            sleep = [
                sleeper
                for sleeper in sleep
                if sleeper[0] != tid
                and sleeper[1] is not None
                and not dependent(sleeper[1], turn.codes)
            ]
        tree = below
        last = tid
        if not going and run.thread_failed():
            break
    else:
        run.cut = bool(runnable)
    self.waiting += rivals(trace, execution)
    if execution.stale():
        self.stale = True


def chosen(tree: Tree, sleep: Tree, runnable: list[int], last: int) -> tuple[int, Tree]:
    from vkemu.exploration.reduction.reduction import awake

    if tree:
        tid, _, below = tree.pop(0)
        if tid in runnable:
            return tid, below
        return awake(runnable, sleep), []
    asleep = {sleeper[0] for sleeper in sleep}
    if last in runnable and last not in asleep:
        return last, []
    return awake(runnable, sleep), []


def rivals(trace: Trace, execution: Any) -> list[Race]:
    """Races of what could have come before an event, and never came."""
    found: list[Race] = []
    end = len(trace)
    for first, tid, footprint, must in execution.might:
        if first >= end:
            continue
        birth = trace.births[tid]
        past = trace.after(trace.clocks[birth] if birth >= 0 else 0, must)
        if not past >> first & 1:
            found.append((first, end, tid, footprint, past, ()))
    return found


def adding(trace: Trace, execution: Execution) -> Callable[[int, Effect], Any]:
    """What adds a step that was just taken."""
    world = cast("Any", execution)

    def add(tid: int, _: Effect) -> None:
        turn = world.taken
        trace.add_after(tid, turn, turn.codes, turn.must, world.births)

    return add


def same(touched: Touched, step: Step) -> None:
    """A step of another process is taken again: does it touch the same here?"""
    others = {*(touched or ())} ^ {*(step.touched or ())}
    if others:
        where = ", ".join(sorted(key_text(key) for key, _ in others)[:3])
        raise Unseen(
            f"a step of thread {step.thread} touches otherwise in another process: {where}"
        )


def form_of(trace: Trace, paths: list[tuple[int, ...]], *, failed: bool = False) -> int:
    """A number for the trace of an execution: of every event, what happens before it. Of one that
    failed only what happens before its end: how far the others got meanwhile is all one."""
    own = list(zip(paths, trace.own, strict=False))
    before = [
        frozenset((path, (clock & events).bit_count()) for path, events in own if clock & events)
        for clock in trace.clocks
    ]
    events = zip((paths[tid] for tid in trace.tids), before, strict=True)
    past = trace.clocks[-1] if failed else -1
    return hash(frozenset(event for n, event in enumerate(events) if past >> n & 1))


class Guesses(Reversals):
    """The reversals of the races of one trace, where what the second event touches is a guess.

    What a leaf of a tree touches is such a guess, so it covers only what begins with its own step,
    and goes on as that does. Of a thread that was explored from a state it is known what it touches
    there, whatever it was taken to. Hence there is more in a tree than has to be: `uncovered`.
    """

    def explore(self, race: Race, free: int, explored: Tree, tree: Tree) -> bool:
        _, second, _, footprint, past, _ = race
        assert footprint is not None
        late = 1 << second
        past = (past | self.rivals_of(footprint)) & free
        events = free | late
        if any(self.ahead(node, events, late, past) is not None for node in explored):
            return False
        while True:
            for n, node in enumerate(tree):
                tid, touched, below = node
                first = self.trace.own[tid] & events
                leaf = not below
                if leaf and not (first if first & -first != late else events == late):
                    continue
                ahead = self.ahead(node, events, late, past)
                if ahead is None:
                    continue
                events ^= ahead
                if leaf and events:
                    event = ahead.bit_length() - 1
                    tree[n] = (
                        tid,
                        self.trace.footprints[event],
                        [self._branch(events, late, footprint)],
                    )
                elif leaf and touched is not None:  # more than one guess
                    tree[n] = tid, tuple(sorted({*touched, *footprint})), below
                if leaf or not events:
                    return False
                tree = below
                break
            else:
                tree.append(self._branch(events, late, footprint))
                return True

    def ahead(self, node: Node, events: int, late: int, past: int) -> int | None:
        """The event that the node takes in front of all others, 0 when it takes none of them; None
        when it cannot go in front."""
        tid, touched, _ = node
        first = self.trace.own[tid] & events
        first &= -first
        if first and first != late:
            before = self.trace.clocks[first.bit_length() - 1] ^ first
        elif touched is None:
            before = events ^ first
        else:
            before = self.rivals_of(touched) & ~first
            if first:
                before |= past
        return None if before & events else first

    def rivals_of(self, footprint: Footprint) -> int:
        rivals = self.trace.rivals
        found = 0
        for code in footprint:
            found |= rivals[code]
        return found


def uncovered(tree: Tree, sleep: Tree) -> Tree:
    """What of a tree is not explored already, by threads of a sleep set that can go in front."""
    found: Tree = []
    for tid, touched, below in tree:
        asleep: Tree = []
        for sleeper in sleep:
            if sleeper[0] == tid:
                break
            known = sleeper[1]
            if known is not None and touched is not None and not dependent(known, touched):
                asleep.append(sleeper)
        else:
            left = uncovered(below, asleep) if below and asleep else below
            if left or not (below or asleep):
                found.append((tid, touched, left))
    return found
