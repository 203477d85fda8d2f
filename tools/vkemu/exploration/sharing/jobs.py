"""One slice of a search, in whatever process: a job comes in, a report goes out."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from vkemu.exploration.checking.audit import Audit
from vkemu.exploration.failure.origin import Build
from vkemu.exploration.failure.witness import Witness
from vkemu.exploration.program import Program
from vkemu.exploration.reduction.footprint import Learned
from vkemu.exploration.reduction.frontier import Found, Frontier, Names
from vkemu.exploration.result import Result
from vkemu.exploration.run import Run
from vkemu.exploration.search import Search
from vkemu.exploration.strategies import strategy_named


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
    learned: Learned = Learned()  # about its objects, by others


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
    stale: Learned | None = None  # begin again, knowing this
    error: BaseException | None = None


class Hand:
    """Does jobs of one task, one after another, keeping the program built for the next."""

    def __init__(self, build: Build, task: Task) -> None:
        self.task = task
        self.program = Program(build, {}, check=task.check)
        self.counting = counting_of(build)
        self.endings: Counter[Any] = Counter()  # of the job at hand
        # Of all jobs: what the program keeps may show in the hundredth, and not within any.
        self.audit = Audit(self.run())

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

    def perform(self, job: Job) -> Report:
        try:
            return self._perform(job)
        except Exception as error:
            return Report(job.number, error=portable(error))

    def _perform(self, job: Job) -> Report:
        task = self.task
        objects = self.program.numbers
        if job.learned != Learned():
            objects.learn(job.learned)
        strategy = strategy_named(task.strategy, task.seed, objects)
        run = self.run()
        names = Names(self.program.tids, objects)
        if isinstance(job.part, Frontier):
            if job.part != Frontier():
                strategy.resume(run, names, job.part)
        else:
            strategy.begin_at(job.part)
        result = Result(task.strategy, task.seed)
        self.endings.clear()
        search = Search(
            run,
            strategy,
            result,
            max_executions=job.executions,
            max_seconds=job.seconds,
            each=self.note if self.counting is not None else None,
            audit=self.audit,
        )
        search.may_restart = False
        search.go()
        stale = objects.learned() if search.stale else None
        left = None
        if isinstance(job.part, Frontier) and not search.finished and stale is None:
            stopped = result.failures and task.stop_on_failure
            if not stopped and strategy.start():
                left = strategy.export(names)
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
            stale,
        )


def portable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
