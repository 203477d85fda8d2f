"""Depth-first searches: the path from the start is kept, shortened and taken again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vkprotocol.effects import CLOCK, Effect, key_text

from vkemu.exploration.result import NondeterminismError
from vkemu.exploration.strategy import Strategy

if TYPE_CHECKING:
    from vkemu.exploration.frontier import Frontier, Names, Step
    from vkemu.exploration.run import Run


class Record:
    """The steps of an execution: what it takes to take them again, and to see that they differ."""

    __slots__ = ("advances", "effects", "tids")

    def __init__(self) -> None:
        self.tids: list[int] = []
        self.effects: list[Effect] = []
        # (position, clock): the virtual clock moved there before the step at `position`.
        self.advances: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.tids)

    def advanced(self) -> None:
        self.advances.append((len(self.tids), CLOCK[0]))

    def truncate(self, n: int) -> None:
        """Forget the steps from `n` on."""
        del self.tids[n:]
        del self.effects[n:]
        # What came before step n was decided by the steps before it.
        while self.advances and self.advances[-1][0] > n:
            self.advances.pop()


class Path(Strategy):
    """A depth-first search. `record` is the path; its first `kept` steps are a replay."""

    exhaustive = True
    counting = False  # somebody wants to know the share

    def __init__(self, record: Record) -> None:
        self.record = record
        self.kept = 0
        self.begun = False
        # (position, how many alternatives of the step there are done), in order; none is 0.
        self.done: list[tuple[int, int]] = []

    def start(self) -> bool:
        if self.begun:
            return self.backtrack()
        self.begun = True
        return True

    def backtrack(self) -> bool:
        """Shorten the path to the deepest step with an alternative. False when there is none."""
        raise NotImplementedError

    def turned(self, at: int) -> None:
        """One more alternative at position `at` is done, and none yet further on."""
        done = self.done
        while done and done[-1][0] > at:
            done.pop()
        before = done.pop()[1] if done and done[-1][0] == at else 0
        done.append((at, before + 1))

    def left(self) -> Sequence[Sequence[object]]:
        """At every position of the path, the alternatives still to be explored."""
        raise NotImplementedError

    def share(self) -> float:
        """How much is done, as if every alternative led to as many executions (Knuth 1975).

        Only if `counting` from the start.
        """
        done = dict(self.done)
        share = 0.0
        weight = 1.0
        for position, left in enumerate(self.left()):
            behind = done.get(position, 0)
            alternatives = behind + 1 + len(left)
            if alternatives > 1:
                weight /= alternatives
                share += weight * behind
        return share + weight

    def conduct(self, run: Run) -> None:
        first = not self.record.tids
        run.schedule = self.record.tids
        self.replay(run)
        if first:
            if not run.settle():
                return
        else:  # what goes wrong in a prefix went wrong, and was told, before
            run.execution.settle()
            run.execution.failed = None
        self.extend(run)

    def extend(self, run: Run) -> None:
        """New steps, until the execution is over."""
        raise NotImplementedError

    def replay(self, run: Run) -> None:
        record = self.record
        execution = run.execution
        tids = record.tids
        effects = record.effects
        self.kept = stop = len(tids)
        position = 0
        for at, clock in record.advances:
            if execution.replay(tids, effects, position, at) < at:
                raise diverged(run, record)
            position = at
            CLOCK[0] = clock
        if execution.replay(tids, effects, position, stop) < stop:
            raise diverged(run, record)


def retrace(
    run: Run, names: Names, frontier: Frontier, record: Record
) -> Iterator[tuple[int, Step]]:
    """Take the path of a frontier again: every step is yielded, to be recorded, and then taken."""
    execution = run.execution
    for position, step in enumerate(frontier.steps):
        if not execution.runnable and execution.advance():
            record.advanced()
        tid = names.tid(step.thread)
        if tid not in execution.runnable:
            raise NondeterminismError(
                "the program is not the one that was being explored: "
                f"at step {position} thread {step.thread} cannot run"
            )
        yield tid, step
        if not execution.step(tid):
            run.thread_failed()
    if not execution.runnable and execution.advance():
        record.advanced()


def diverged(run: Run, record: Record) -> NondeterminismError:
    """Name the first step that is not what it was."""
    run.begin()
    position = 0
    for position in range(len(record)):
        for at, clock in record.advances:
            if at == position:
                CLOCK[0] = clock
        if run.execution.replay(record.tids, record.effects, position, position + 1) == position:
            break
    threads = run.execution.threads
    tid = record.tids[position]
    thread = threads.get(tid)
    before = record.effects[position]
    now = thread.pending if thread is not None else None
    what = f"{now.op} {key_text(now.obj.key)}" if now is not None else "nothing"
    name = thread.name if thread is not None else f"thread {tid}"
    return NondeterminismError(
        f"the program is not deterministic: step {position}, by {name}, was "
        f"{before.op} {key_text(before.obj.key)} and is {what} under the same schedule"
    )
