"""A search in parts: who explores what.

Every job is a slice of the search of some subtree, of a fraction of a second. What is left of it
comes back as a frontier; when somebody is idle it is split (`division`), else it goes on as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any

from vkemu.executors.deadline import within
from vkemu.exploration.failure.origin import Build
from vkemu.exploration.failure.witness import WITNESSES_MAX, Witness
from vkemu.exploration.reduction.footprint import Learned, Objects
from vkemu.exploration.result import ExplorationError, Result
from vkemu.exploration.sharing.checkpoint import Checkpoint
from vkemu.exploration.sharing.division import Division, Part
from vkemu.exploration.sharing.jobs import (
    Hand,
    Job,
    Report,
    Task,
    counting_of,
    search_of,
)
from vkemu.exploration.strategies.sampling import BLOCK
from vkemu.workers.job import Workers, WorkersError, count_of
from vkemu.workers.processes import Here, Processes

FIRST_SLICE_SECONDS = 0.02  # while somebody has nothing to do


def slice_seconds(age: float, under_way: int, somebody_idle: bool) -> float:
    """Of a job of a search of this age. The longer the search, the more there is to hand over with
    a part; and the more jobs, the more there is to do here."""
    usual_seconds = 0.25
    least = FIRST_SLICE_SECONDS if somebody_idle else usual_seconds
    last_slice_seconds = 5.0
    report_seconds = 0.01  # twice what handing out a job and taking it back keeps us, with Dask
    return max(least, min(age / 8, last_slice_seconds), under_way * report_seconds)


def recalled_seconds(age: float, part: Part, somebody_idle: bool) -> tuple[float, float]:
    """Of a job that can be recalled: at least, and when nobody recalls it."""
    node_seconds = 5e-6  # a few times what it takes to carry one of its trees
    frontier = part.frontier
    nodes = len(frontier.tree) + sum(len(step.tree) for step in frontier.steps)
    least = FIRST_SLICE_SECONDS
    if not somebody_idle:
        least = max(least, nodes * node_seconds)
    usual_seconds = 0.25
    last_slice_seconds = 0.5 if part.tells else 5.0  # what is told is put in place meanwhile
    return least, max(usual_seconds, min(age / 2, last_slice_seconds), 4 * least)


class Coordinator:
    """Hands out jobs and adds up reports, within the budgets."""

    def __init__(
        self,
        workers: Workers,
        count: int,
        result: Result,
        *,
        stop_on_failure: bool,
        max_executions: int | None,
        max_seconds: float | None,
        progress: Callable[[Result], None] | None,
        alone: int = 0,
        search: bytes = b"",
        alone_there: bool = False,
    ) -> None:
        self.workers = workers
        self.common: dict[str, Any] = {"search": search, "alone": search if alone_there else b""}
        self._count = count
        self.result = result
        self.stop_on_failure = stop_on_failure
        self.max_executions = max_executions
        self.deadline = None if max_seconds is None else perf_counter() + max_seconds
        self.progress = progress
        self.began = perf_counter()
        self.granted = 0  # executions, to jobs under way
        self.number = 0
        self.alone = alone  # executions before anything is divided
        self.witnesses: dict[str, Witness] = {}
        self.endings: Counter[Any] = Counter()
        self.forms: set[int] = set()
        self.finished = False
        self.options: dict[str, Any] = {}  # of every job from now on
        self.under_way: dict[int, tuple[Any, int]] = {}

    def timed(self) -> AbstractContextManager[None]:
        """For the search alone: to start workers, to save and to close takes what it takes."""
        seconds = None if self.deadline is None else self.deadline - perf_counter()
        return within(seconds, lambda: self.result.steps)

    @property
    def count(self) -> int:
        """Workers there are now: on a cluster they come and go."""
        return count_of(self.workers, self._count)

    def account(self, report: Report, granted: int) -> None:
        self.granted -= granted
        result = self.result
        result.executions += report.executions
        result.blocked += report.blocked
        result.cut += report.cut
        result.failures += report.failures
        result.steps += report.steps
        result.depth = max(result.depth, report.depth)
        for ending, times in report.endings:
            self.endings[ending] += times
        self.forms.update(report.forms)
        for witness in report.witnesses:
            if len(self.witnesses) < WITNESSES_MAX:
                self.witnesses.setdefault(witness.kind, witness)
        result.seconds = perf_counter() - self.began

    def show(self) -> None:
        if self.progress is not None:
            self.result.workers = self.count
            self.progress(self.result)

    def grant(self, waiting: int) -> int:
        """How many executions a job may have: a share of what is left of the budget."""
        done = self.result.executions + self.result.cut
        left = 1 << 60
        if self.max_executions is not None:
            left = self.max_executions - done - self.granted
        if done < self.alone:
            return max(0, min(left, self.alone - done))
        if self.max_executions is None:
            return left
        return max(0, -(-left // max(2 * self.count, waiting)))

    def used_up(self) -> bool:
        done = self.result.executions + self.result.cut
        return self.max_executions is not None and done >= self.max_executions

    def out_of_time(self) -> bool:
        return self.deadline is not None and perf_counter() >= self.deadline

    def exhaustive(self, division: Division, save: Callable[[], None] | None = None) -> None:
        """`dfs` or `dpor`, from wherever `division` stands."""
        under_way = self.under_way
        recall = getattr(self.workers, "recall", None)
        if self.witnesses and self.stop_on_failure:
            return  # a checkpoint of a search that a failure has ended
        while True:
            while division.parts and len(under_way) < self.count and not self.out_of_time():
                granted = self.grant(len(division.parts))
                if not granted:
                    break
                part = division.first()
                self.number += 1
                self.granted += granted
                under_way[self.number] = part, granted
                division.parts.popleft()
                spread = len(under_way) + len(division.parts) < self.count
                alone = self.result.executions < self.alone
                age = perf_counter() - self.began
                seconds = most = slice_seconds(age, len(under_way), spread and not alone)
                if recall is not None and not alone:
                    seconds, most = recalled_seconds(age, part, spread)
                self.workers.submit(
                    Job(
                        self.number, part.frontier, granted, seconds, most,
                        **self.options, **self.common,
                    )
                )  # fmt: skip
            if not under_way:
                break
            if recall is not None and len(under_way) < self.count:
                recall()
            reports = self.workers.results()
            refuse_errors(reports)
            if any(report.stale is not None for report in reports):
                self._begin_again(division, reports)
                continue
            for report in reports:
                # Under way until all of it is accounted for: whatever ends the search before that,
                # a checkpoint has the part, and the next run takes it up.
                part, granted = under_way[report.number]
                self.account(report, granted)
                alone = self.result.executions < self.alone
                idle = 0 if alone else self.count - len(under_way) + 1
                division.take_back(part, report, idle)
                self.result.share = min(division.done, 1.0)
                del under_way[report.number]
                self.show()
            if self.witnesses and self.stop_on_failure:
                return
            if save is not None:
                save()
        # One process does not look whether anything is left when its executions are used up.
        self.finished = not division.parts and not (self.number and self.used_up())

    def _begin_again(self, division: Division, reports: list[Report]) -> None:
        """More depends on each other than was known: what has been done does not count.

        Who has found something out knows it from then on and does not say it again, so what the
        jobs that are still under way find out is waited for.
        """
        while len(reports) < len(self.under_way):
            reports += self.workers.results()
        refuse_errors(reports)
        objects = Objects()
        for report in reports:
            if report.stale is not None:
                objects.learn(report.stale)
        self.options = {"learned": objects.learned()}
        self.granted = 0
        result = self.result
        result.executions = result.blocked = result.cut = result.failures = 0
        self.endings.clear()
        self.forms.clear()
        division.restart()
        self.under_way.clear()

    def sampled(self) -> None:
        """Random executions, by blocks. The failure with the lowest number is the one that counts,
        and what comes after it does not."""
        reports: dict[int, Report] = {}
        try:
            self._sampled(reports)
        except KeyboardInterrupt:  # what waits for the blocks before it is known all the same
            for block in sorted(reports):
                if reports[block].error is None:
                    self.account(reports[block], 0)
            raise

    def _sampled(self, reports: dict[int, Report]) -> None:
        assert self.max_executions is not None or self.deadline is not None
        under_way: dict[int, tuple[int, int]] = {}
        block = added = 0
        last = None
        if self.max_executions is not None:
            last = -(-self.max_executions // BLOCK)
        failed = False
        while True:
            while len(under_way) < 2 * self.count and not failed and not self.out_of_time():
                if block == last:
                    break
                size = BLOCK
                if self.max_executions is not None:
                    size = min(BLOCK, self.max_executions - block * BLOCK)
                self.number += 1
                under_way[self.number] = block, size
                self.workers.submit(Job(self.number, block, size, float("inf"), **self.common))
                block += 1
            if not under_way:
                return
            for report in self.workers.results():
                done, _ = under_way.pop(report.number)
                reports[done] = report
                if report.error is not None or (report.failures and self.stop_on_failure):
                    failed = True
            while added in reports:
                report = reports.pop(added)
                added += 1
                refuse_errors([report])
                self.account(report, 0)
                self.show()
                if report.failures and self.stop_on_failure:
                    return


def refuse_errors(reports: list[Report]) -> None:
    for report in reports:
        if report.error is not None:
            raise report.error


def explore_in_parts(
    program: Build,
    task: Task,
    result: Result,
    *,
    jobs: int,
    workers: Workers | None,
    checkpoint: str | None,
    max_executions: int | None,
    max_seconds: float | None,
    progress: Callable[[Result], None] | None,
) -> tuple[list[Witness], bool, Learned, set[int]]:
    """The whole of a divided search: its witnesses, whether all that was asked for was done, what
    it has learned about the program's objects, and the forms of its traces for an audit.

    A program that is `Counting` is told in the end what its executions ended in.
    """
    counting = counting_of(program)
    elsewhere = jobs > 1 if workers is None else not isinstance(workers, Here)
    search = search_of(program, task) if elsewhere else b""
    preload = ("vkemu.exploration.sharing.jobs", "vkemu.exploration.strategies.dpor")
    if workers is None:
        workers = Processes(jobs, preload) if elsewhere else Here({search: Hand(program, task)})
    # Before a program that counts its endings is divided: a failure among them ends the search with
    # the counts of one process.
    alone_executions = 64
    coordinator = Coordinator(
        workers,
        jobs,
        result,
        stop_on_failure=task.stop_on_failure,
        max_executions=max_executions,
        max_seconds=max_seconds,
        progress=progress,
        alone=alone_executions if task.stop_on_failure and counting is not None else 0,
        search=search,
        alone_there=getattr(program, "only_thread", False),
    )
    try:
        if task.strategy in {"dfs", "dpor"}:
            division = Division(late=getattr(program, "late", False))
            saved = None
            if checkpoint is not None:
                saved = Checkpoint(checkpoint, program, task, coordinator, division)
                saved.load()
            try:
                with coordinator.timed():
                    coordinator.exhaustive(division, saved.save if saved is not None else None)
            finally:
                if saved is not None:
                    saved.save(last=True)
            result.exhausted = coordinator.finished and not result.cut
        else:
            with coordinator.timed():
                coordinator.sampled()
            coordinator.finished = True
    except KeyboardInterrupt as stop:
        result.stopped(stop)
        coordinator.finished = False
    except WorkersError as error:
        raise ExplorationError(str(error)) from None
    finally:
        workers.close()
        if counting is not None:
            for ending, times in coordinator.endings.items():
                counting.count(ending, times)
    learned = coordinator.options.get("learned", Learned())
    return list(coordinator.witnesses.values()), coordinator.finished, learned, coordinator.forms
