"""The search: one execution after another, until the strategy or a budget says stop."""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from vkemu.exploration.checking.audit import Audit, audit_of
from vkemu.exploration.forgotten import noticing, origins
from vkemu.exploration.result import Result, Unseen
from vkemu.exploration.run import Run

if TYPE_CHECKING:
    from vkemu.exploration.failure.witness import Witness

Progress = Callable[[Result], None]


class Search:
    """Budgets, counters and the first failure of one strategy over one program."""

    def __init__(
        self,
        run: Run,
        strategy: Any,
        result: Result,
        *,
        max_executions: int | None = None,
        max_seconds: float | None = None,
        more: Callable[[], float] | None = None,
        progress: Progress | None = None,
        each: Callable[[Run], None] | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.run = run
        self.strategy = strategy
        self.result = result
        self.max_executions = max_executions
        self.max_seconds = max_seconds
        self.more = more  # seconds, when those are over
        self.progress = progress
        self.each = each
        self.audit = audit or audit_of(run)
        self.witnesses: dict[str, Witness] = {}  # by kind of failure, in the order they were found
        self.may_restart = True
        self.stale = False  # a part of a search may not restart: all of it has to
        self.finished = False  # the strategy has nothing left
        self.began = 0.0
        self.deadline = inf

    def go(self) -> None:
        """Until nothing is left, a failure stops it, or the budget is used up."""
        # Executions leave next to no cycles behind, but many objects that look like it.
        thresholds = gc.get_threshold()
        garbage_objects = 50_000  # made and not freed, before the collector looks
        if thresholds[0]:
            gc.set_threshold(max(garbage_objects, thresholds[0]), *thresholds[1:])
        self.began = perf_counter()
        if self.max_seconds is not None:
            self.deadline = self.began + self.max_seconds
        try:
            with noticing():
                self._go()
        except KeyboardInterrupt:
            self.result.steps += len(self.run.schedule)
            self.result.seconds = perf_counter() - self.began
            raise
        except Unseen as error:
            self.result.doubt = str(error)
            self.result.exhausted = False
        finally:
            gc.set_threshold(*thresholds)
            self.run.execution.close()  # of an execution that was interrupted

    def _go(self) -> None:
        run = self.run
        result = self.result
        strategy = self.strategy
        audit = self.audit
        start = getattr(strategy, "start", always)
        finish = getattr(strategy, "finish", None)
        exhaustive = getattr(strategy, "exhaustive", False)
        conduct = getattr(strategy, "conduct", None) or by_choice(strategy)
        progress_seconds = 0.2
        look = self.began + progress_seconds if self.progress is not None else None
        left = self.budget()
        first = True
        while True:  # CPython 3.11 does not take `while left` for a loop, and is slow
            if not left or (perf_counter() >= self.deadline and not self.prolonged()):
                break
            if not start():
                if self.may_restart and not result.cut and audit.learned():
                    left = self.restart()
                    continue
                self.finished = True
                result.exhausted = not result.cut and getattr(strategy, "exhausted", always)()
                break
            due = audit.due()
            if first:
                first = False
                with origins():
                    run.begin(due)
                    conduct(run)
            else:
                run.begin(due)
                conduct(run)
            error = run.finish()
            result.steps += len(run.schedule)
            if len(run.schedule) > result.depth:
                result.depth = len(run.schedule)
            if run.repeated:
                continue
            if getattr(strategy, "stale", False):
                if not self.may_restart:
                    self.stale = True
                    break
                left = self.restart()
                continue
            if run.blocked:
                result.blocked += 1
            elif run.cut:
                result.cut += 1
            else:
                result.executions += 1
                audit.saw(strategy)
                if self.each is not None:
                    self.each(run)
            # Not exhaustive, it could abandon everything, for ever, if that were free.
            left -= not (run.blocked and exhaustive)
            if finish is not None and not run.blocked:
                finish(not run.cut)
            if error is not None and not run.blocked:  # else another execution has it in full
                result.failures += 1
                self.note(run)
                if run.stop_on_failure:
                    break
            if due:
                audit.check(run)
            if look is not None and perf_counter() >= look:
                self.show(self.began)
                look = perf_counter() + progress_seconds
        audit.conclude()
        self.show(self.began)

    def prolonged(self) -> bool:
        more = 0.0 if self.more is None else self.more()
        self.deadline = perf_counter() + more
        return more > 0

    def budget(self) -> int:
        """Executions there may be, -1 for any number."""
        return self.max_executions if self.max_executions is not None else -1

    def restart(self) -> int:
        """Nothing counts, and so all of the budget is left."""
        self.strategy.restart()
        result = self.result
        result.executions = result.blocked = result.cut = result.failures = 0
        return self.budget()

    def note(self, run: Run) -> None:
        """Keep a witness of every kind of failure."""
        from vkemu.exploration.failure.witness import WITNESSES_MAX, witness_of

        for fault in run.faults:
            if len(self.witnesses) < WITNESSES_MAX and fault.kind not in self.witnesses:
                self.witnesses[fault.kind] = witness_of(run, fault)

    def show(self, began: float) -> None:
        self.result.seconds = perf_counter() - began
        share = getattr(self.strategy, "share", None)
        if share is not None:
            self.result.share = 1.0 if self.finished else share()
        if self.progress is not None:
            self.progress(self.result)


def always() -> bool:
    return True


def by_choice(strategy: Any) -> Callable[[Run], None]:
    """The whole of an execution, for a strategy that only chooses."""
    from vkemu.exploration.strategies.strategy import Strategy

    return lambda run: Strategy.conduct(strategy, run)
