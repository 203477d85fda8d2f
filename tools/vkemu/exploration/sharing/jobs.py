"""One slice of a search, in whatever process: a job comes in, a report goes out."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from secrets import token_bytes
from time import perf_counter
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from vkemu.executors.collector import uncollected
from vkemu.exploration.checking.audit import audit_of
from vkemu.exploration.checking.guards import guards
from vkemu.exploration.failure.origin import Build, program_of, reference
from vkemu.exploration.failure.witness import Witness
from vkemu.exploration.program import program_for
from vkemu.exploration.reduction.footprint import Learned
from vkemu.exploration.reduction.frontier import Found, Frontier, Names
from vkemu.exploration.result import Result
from vkemu.exploration.run import Run
from vkemu.exploration.search import Search
from vkemu.exploration.strategies import strategy_named
from vkemu.workers.job import Kept, never, portable


@runtime_checkable
class Counting(Protocol):
    """A program that counts what its executions end in, wherever they are taken."""

    def ending(self, run: Run) -> Any:
        """What a complete execution ended in, as a plain value that can be sent."""

    def count(self, ending: Any, times: int) -> None:
        """So many more executions ended in this."""


def counting_of(program: object) -> Counting | None:
    return program if isinstance(program, Counting) else None


class Task(NamedTuple):
    """What all jobs of a search have in common."""

    strategy: str
    seed: int
    max_steps: int
    stop_on_failure: bool
    on_step_bound: Literal["unknown", "fail"]
    check: bool


class Job(NamedTuple):
    """A part of the search. `part` is a frontier, or the number of a block of random executions."""

    number: int
    part: Frontier | int
    executions: int  # at most
    seconds: float  # about
    most: float = 0.0  # seconds, about, for as long as it is not recalled
    learned: Learned = Learned()  # about its objects, by others
    search: bytes = b""  # which program and task, see `search_of`; empty for a `Hand` that is there
    alone: bytes = b""  # the same, where no process that has threads may do it

    def perform(self, kept: Kept) -> Report:
        hand: Hand | None = kept.get(self.search)
        if hand is None:
            try:
                hand = Hand(*found(self.search))
            except Exception as error:
                return Report(self.number, error=portable(error))
            kept.clear()  # one is enough: it holds all of a machine
            kept[self.search] = hand
        return hand.perform(self, kept.recalled)


class Report(NamedTuple):
    """What came of a job."""

    number: int
    executions: int = 0
    blocked: int = 0
    cut: int = 0
    failures: int = 0
    steps: int = 0
    depth: int = 0
    left: Frontier | None = None  # of the job's part
    found: tuple[Found, ...] = ()  # for the states above it
    witnesses: tuple[Witness, ...] = ()
    endings: tuple[tuple[Any, int], ...] = ()  # see Counting
    forms: tuple[int, ...] = ()  # see Audit
    stale: Learned | None = None  # begin again, knowing this
    error: BaseException | None = None
    share: float = 1.0  # of the part, about, that is done with this job


def search_of(build: Build, task: Task) -> bytes:
    """Program and task, for any process that has our code and the program's. Of this search: what
    a worker has learnt in another is no part of it."""
    return pickle.dumps((reference(build), task, token_bytes(8)))


def found(search: bytes) -> tuple[Build, Task]:
    referred, task, _ = pickle.loads(search)
    return program_of(referred), task


class Hand:
    """Does jobs of one task, one after another, keeping the program built for the next."""

    def __init__(self, build: Build, task: Task) -> None:
        self.build = build
        self.task = task
        self.program = program_for(build, {}, check=task.check)
        self.counting = counting_of(build)
        self.endings: Counter[Any] = Counter()  # of the job at hand
        # Of all jobs: what the program keeps may show in the hundredth, and not within any.
        self.audit = audit_of(self.run())

    def run(self) -> Run:
        task = self.task
        return Run(
            self.program,
            task.max_steps,
            stop_on_failure=task.stop_on_failure,
            bound_fails=task.on_step_bound == "fail",
        )

    def note(self, run: Run) -> None:
        assert self.counting is not None
        self.endings[self.counting.ending(run)] += 1

    def perform(self, job: Job, recalled: Callable[[], bool] = never) -> Report:
        try:
            with guards(self.build) if self.task.check else nullcontext():
                return self._perform(job, recalled)
        except Exception as error:
            return Report(job.number, error=portable(error))

    def _perform(self, job: Job, recalled: Callable[[], bool]) -> Report:
        task = self.task
        objects = self.program.numbers
        if job.learned != Learned():
            objects.learn(job.learned)
        strategy = strategy_named(task.strategy, task.seed, objects)
        run = self.run()
        names = Names(self.program.tids, objects)
        if isinstance(job.part, Frontier):
            if job.part.steps or job.part.tree:
                with uncollected():
                    strategy.resume(run, names, job.part)
        else:
            strategy.begin_at(job.part)
        result = Result(task.strategy, task.seed)
        self.endings.clear()
        self.audit.forms.clear()
        began = perf_counter()

        def more() -> float:
            over = recalled() or perf_counter() >= began + job.most
            look_seconds = 0.03
            return 0.0 if over else look_seconds

        search = Search(
            run,
            strategy,
            result,
            max_executions=job.executions,
            max_seconds=job.seconds,
            more=more,
            each=self.note if self.counting is not None else None,
            audit=self.audit,
        )
        search.may_restart = False
        search.go()
        stale = objects.learned() if search.stale else None
        left = None
        share = 1.0
        if isinstance(job.part, Frontier) and stale is None:
            share = strategy.share()
            going_on = not search.finished and strategy.start()
            with uncollected():
                left = strategy.export(names) if going_on else strategy.at_floor(names)
        return Report(
            job.number,
            result.executions,
            result.blocked,
            result.cut,
            result.failures,
            result.steps,
            result.depth,
            left,
            tuple(getattr(strategy, "outbox", ())),
            tuple(search.witnesses.values()),
            tuple(self.endings.items()),
            tuple(self.audit.forms),
            stale,
            share=share,
        )
