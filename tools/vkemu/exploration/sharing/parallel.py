"""A search in parts: who explores what, and what they find for each other.

Every job is a slice of the search of some subtree, of a fraction of a second. What is left of it
comes back as a frontier; when somebody is idle it is split at its shallowest fork, else it goes on
as it is. For `dfs` the parts have nothing to do with each other. For `dpor` a race may have its
first event above the subtree it was found in. So the states above any subtree given away are kept
here (`State`): a reversal found for one of them is checked against all that was begun from it, and
when nothing covers it a new subtree begins. Everything begun from a state is in the sleep set of
what begins there later, done or not: each trace is in exactly one part, and how many there are
does not depend on who was faster. But what optimal DPOR gains from finishing one subtree before it
begins the next - no execution that finds, too late, that all it can do is explored elsewhere - is
lost between parts: `blocked` may be more than 0, as for `source-dpor`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from vkemu.exploration.failure.origin import Build
from vkemu.exploration.failure.witness import WITNESSES_MAX, Witness
from vkemu.exploration.reduction.footprint import Learned, Objects
from vkemu.exploration.reduction.frontier import Flat, Found, Frontier, Names, Path, Step, Touched
from vkemu.exploration.reduction.wakeup import Reversals, Tree
from vkemu.exploration.result import Result
from vkemu.exploration.sharing.checkpoint import Checkpoint
from vkemu.exploration.sharing.jobs import Job, Report, Task, counting_of
from vkemu.exploration.sharing.workers import Here, Processes, Workers
from vkemu.exploration.strategies.sampling import BLOCK

SLICE_SECONDS = 0.25
FIRST_SLICE_SECONDS = 0.02  # while somebody has nothing to do
# Before a program that counts its endings is divided: a failure among them ends the search with
# the counts of one process.
ALONE_EXECUTIONS = 64


class State:
    """A state that several parts begin from or pass through.

    `explored` is what nothing needs to begin with any more, there; `asleep` the same for a part
    that begins there: what the other parts find is not known to it.
    """

    __slots__ = ("asleep", "explored")

    def __init__(self, sleep: Flat) -> None:
        self.explored = sleep
        self.asleep = tuple((-1, thread, touched) for _, thread, touched in sleep)

    def begun(self, thread: Path, touched: Touched) -> None:
        self.explored = (*self.explored, (0, thread, touched))
        self.asleep = (*self.asleep, (-1, thread, touched))


class Part(NamedTuple):
    """A part of the search that nobody is at. `above`: the states before its root, in order."""

    frontier: Frontier
    above: tuple[State, ...] = ()


class Division:
    """The parts of an exhaustive search."""

    def __init__(self) -> None:
        self.names = Names({}, Objects())
        self.parts: deque[Part] = deque([Part(Frontier())])

    def take_back(self, part: Part, report: Report, idle: int) -> None:
        """What is left of a part, and what it found for others. Split it where that is not enough
        to give the `idle` workers something to do."""
        for found in report.found:
            self._found(part, found)
        if report.left is None:
            return
        left = Part(report.left, part.above)
        if idle > len(self.parts) + 1:
            self.parts.extend(self._split(left))
        else:
            self.parts.append(left)

    def _split(self, part: Part) -> list[Part]:
        """At the shallowest state with something left to explore."""
        frontier, above = part
        steps = list(frontier.steps)
        for position in range(frontier.root, len(steps)):
            step = steps[position]
            state = State(step.sleep)
            state.begun(step.thread, step.touched)
            above = (*above, state)
            if step.tree:
                steps[position] = step._replace(tree=())
                going_on = frontier._replace(root=position + 1, steps=tuple(steps))
                begun = self._begin(tuple(steps[:position]), above, step.tree)
                return [Part(going_on, above), *begun]
        state = State(frontier.sleep)
        return self._begin(tuple(steps), (*above, state), frontier.tree)

    def _begin(self, steps: tuple[Step, ...], above: tuple[State, ...], tree: Flat) -> list[Part]:
        """A part for every branch of `tree`, which is to be explored from the last state."""
        state = above[-1]
        parts = []
        for branch in branches(tree):
            frontier = Frontier(len(steps) + 1, steps, state.asleep, branch)
            parts.append(Part(frontier, above))
            _, thread, touched = branch[0]
            state.begun(thread, touched)
        return parts

    def first(self) -> Part:
        """The part to be explored next, with what is known by now of the states above it."""
        frontier, above = self.parts[0]
        steps = known(frontier.steps, above)
        return Part(frontier._replace(steps=steps), above)

    def _found(self, part: Part, found: Found) -> None:
        """A reversal for a state above a part: begin there, unless that was begun."""
        state = part.above[found.position]
        names = self.names
        explored: Tree = names.sleep(state.explored)
        trace, race = names.trace(found.events)
        for tid, _, _ in explored:
            trace.past_of(tid)  # makes room for the thread
        fresh: Tree = []
        free = (1 << (len(trace) - 1)) - 1
        if Reversals(trace).explore(race, free, explored, fresh):
            steps = part.frontier.steps[: found.position]
            above = part.above[: found.position + 1]
            self.parts.extend(self._begin(steps, above, names.flat(fresh)))


def known(steps: tuple[Step, ...], above: tuple[State, ...]) -> tuple[Step, ...]:
    """The steps of a path, those from the states above it with what has been explored there."""
    mine = steps[len(above) :]
    shared = zip(steps, above, strict=False)
    return (*(step._replace(sleep=state.explored, tree=()) for step, state in shared), *mine)


def branches(tree: Flat) -> list[Flat]:
    """The trees of one root each."""
    starts = [n for n, (depth, _, _) in enumerate(tree) if not depth]
    return [tree[a:b] for a, b in zip(starts, [*starts[1:], len(tree)], strict=True)]


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
    ) -> None:
        self.workers = workers
        self.count = count
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
        self.finished = False
        self.options: dict[str, Any] = {}  # of every job from now on
        self.under_way: dict[int, tuple[Part, int]] = {}

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
        for witness in report.witnesses:
            if len(self.witnesses) < WITNESSES_MAX:
                self.witnesses.setdefault(witness.kind, witness)
        result.seconds = perf_counter() - self.began

    def show(self) -> None:
        if self.progress is not None:
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

    def out_of_time(self) -> bool:
        return self.deadline is not None and perf_counter() >= self.deadline

    def exhaustive(self, division: Division, save: Callable[[], None] | None = None) -> None:
        """`dfs` or `dpor`, from wherever `division` stands."""
        under_way = self.under_way
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
                seconds = FIRST_SLICE_SECONDS if spread and not alone else SLICE_SECONDS
                self.workers.submit(
                    Job(self.number, part.frontier, granted, seconds, **self.options)
                )
            if not under_way:
                break
            reports = self.workers.results()
            refuse_errors(reports)
            stale = next((report.stale for report in reports if report.stale is not None), None)
            if stale is not None:
                self._begin_again(division, {report.number for report in reports}, stale)
                continue
            for report in reports:
                # Under way until all of it is accounted for: whatever ends the search before that,
                # a checkpoint has the part, and the next run takes it up.
                part, granted = under_way[report.number]
                self.account(report, granted)
                alone = self.result.executions < self.alone
                idle = 0 if alone else self.count - len(under_way) + 1
                division.take_back(part, report, idle)
                del under_way[report.number]
                self.show()
            if self.witnesses and self.stop_on_failure:
                return
            if save is not None:
                save()
        self.finished = not division.parts

    def _begin_again(self, division: Division, reported: set[int], learned: Learned) -> None:
        """More depends on each other than was known: what has been done does not count."""
        while not reported >= self.under_way.keys():
            reports = self.workers.results()
            refuse_errors(reports)
            reported.update(report.number for report in reports)
        self.options = {"learned": learned}
        self.granted = 0
        result = self.result
        result.executions = result.blocked = result.cut = result.failures = 0
        self.endings.clear()
        division.parts = deque([Part(Frontier())])
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
                self.workers.submit(Job(self.number, block, size, float("inf")))
                block += 1
            if not under_way:
                return
            for report in self.workers.results():
                done, _ = under_way.pop(report.number)
                reports[done] = report
                failed = failed or (bool(report.failures) and self.stop_on_failure)
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
) -> tuple[list[Witness], bool, Learned]:
    """The whole of a divided search: its witnesses, whether all that was asked for was done, and
    what it has learned about the program's objects.

    A program that is `Counting` is told in the end what its executions ended in.
    """
    counting = counting_of(program)
    if workers is None:
        workers = Processes(program, task, jobs) if jobs > 1 else Here(program, task)
    coordinator = Coordinator(
        workers,
        jobs,
        result,
        stop_on_failure=task.stop_on_failure,
        max_executions=max_executions,
        max_seconds=max_seconds,
        progress=progress,
        alone=ALONE_EXECUTIONS if task.stop_on_failure and counting is not None else 0,
    )
    try:
        if task.strategy in {"dfs", "dpor"}:
            division = Division()
            saved = None
            if checkpoint is not None:
                saved = Checkpoint(checkpoint, program, task, coordinator, division)
                saved.load()
            try:
                coordinator.exhaustive(division, saved.save if saved is not None else None)
            finally:
                if saved is not None:
                    saved.save(last=True)
            result.exhausted = coordinator.finished and not result.cut
        else:
            coordinator.sampled()
            coordinator.finished = True
    except KeyboardInterrupt as stop:
        result.stopped(stop)
        coordinator.finished = False
    finally:
        workers.close()
        if counting is not None:
            for ending, times in coordinator.endings.items():
                counting.count(ending, times)
    learned = coordinator.options.get("learned", Learned())
    return list(coordinator.witnesses.values()), coordinator.finished, learned
