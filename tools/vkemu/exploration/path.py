"""Depth-first searches: the path from the start is kept, shortened and taken again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vkprotocol.effects import CLOCK, key_text

from vkemu.executors.announced import same_effect
from vkemu.exploration.record import Record
from vkemu.exploration.result import NondeterminismError, differs
from vkemu.exploration.strategies.strategy import Strategy

if TYPE_CHECKING:
    from vkemu.exploration.run import Fault, Run


class Path(Strategy):
    """A depth-first search. `record` is the path; its first `kept` steps are a replay."""

    exhaustive = True

    def __init__(self, record: Record) -> None:
        self.record = record
        self.kept = 0
        self.root = 0  # the states before it are explored by somebody else
        self.begun = False
        self.wrong: list[Fault] = []  # on the path
        # By position: how many alternatives of the step there are done. 0 from its end on.
        self.done: list[int] = []

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
        if at < len(done):
            done[at] += 1
            del done[at + 1 :]
        else:
            done += [0] * (at - len(done))
            done.append(1)

    def left(self) -> Sequence[Sequence[object]]:
        """At every position of the path, the alternatives still to be explored."""
        raise NotImplementedError

    def share(self) -> float:
        """How much is done, as if every alternative led to as many executions (Knuth 1975)."""
        share = 0.0
        weight = 1.0
        left = self.left()
        # An execution that could not go on from where the path was turned is shorter than that.
        done = (self.done + [0] * (len(left) - len(self.done)))[: len(left)]
        for behind, ahead in zip(done[self.root :], left[self.root :], strict=True):
            alternatives = behind + 1 + len(ahead)
            if alternatives > 1:
                weight /= alternatives
                share += weight * behind
        return share + weight

    def conduct(self, run: Run) -> None:
        record = self.record
        run.schedule = tids = record.tids
        self.kept = kept = len(tids)
        execution = run.execution
        if kept and self.asks(run) and not execution.late:
            self.replay_asking(run)
        elif record.advances:
            self.replay_timed(run)
        else:
            position = execution.replay(tids, record.effects, 0, kept)
            if position < kept:
                raise diverged(run, record, position)
        if kept:
            if execution.deferred:
                execution.settle()
            if execution.failed is not None:
                execution.failed = None
                execution.failed_too = ()
            # What goes wrong in a prefix is known from the first time.
            for fault in self.wrong:
                if fault.at <= kept:
                    run.note(fault)
        elif not run.settle():
            return
        self.extend(run)
        if run.faults or self.wrong:
            self.remember(run)

    def replay_timed(self, run: Run) -> None:
        """The steps of the path again, with the clock moving in between."""
        record = self.record
        position = 0
        for at, clock in [*record.advances, (len(record), -1)]:
            position = run.execution.replay(record.tids, record.effects, position, at)
            if position < at:
                raise diverged(run, record, position)
            CLOCK[0] = max(clock, CLOCK[0])

    def asks(self, run: Run) -> bool:
        """Whether a guard may have come to hold with nobody asking it."""
        return run.program.guards.silent

    def replay_asking(self, run: Run) -> None:
        """The steps of the path again, and who waits is asked when he was: later his guard may have
        come to hold, and nobody would have said so."""
        record = self.record
        execution = run.execution
        execution.settle()
        moved = [at for at, _ in record.advances]
        for position, (tid, effect) in enumerate(zip(record.tids, record.effects, strict=True)):
            for _ in range(moved.count(position)):
                execution.advance()
            thread = execution.threads.get(tid)
            if thread is None or not thread.runnable or not same_effect(thread.pending, effect):
                raise diverged(run, record, position)
            execution.step(tid)
        for _ in range(moved.count(len(record))):
            execution.advance()

    def remember(self, run: Run) -> None:
        self.wrong = run.faults[:]

    def extend(self, run: Run) -> None:
        """New steps, until the execution is over."""
        raise NotImplementedError


def diverged(run: Run, record: Record, position: int) -> NondeterminismError:
    """The step at `position` is not what it was."""
    tid = record.tids[position]
    thread = run.execution.threads.get(tid)
    name = f"thread {tid}" if thread is None else thread.name
    now = None if thread is None else thread.pending
    was, found = (
        f"{effect.op} {key_text(effect.obj.key)}" if effect is not None else "nothing"
        for effect in (record.effects[position], now)
    )
    return differs(f"step {position}, by {name},", was, found)


def withheld(run: Run, tid: int) -> NondeterminismError:
    """Where a prefix ends, thread `tid` could go on, and now cannot."""
    thread = run.execution.threads.get(tid)
    name = f"thread {tid}" if thread is None else thread.name
    return differs(f"step {len(run.schedule)}, by {name},", "possible", "not")
