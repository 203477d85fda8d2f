"""A search in parts finds what it finds in one piece."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from vkemu import explore
from vkemu.exploration import ExplorationError
from vkemu.exploration.reduction.footprint import Learned
from vkemu.exploration.reduction.frontier import Frontier
from vkemu.exploration.result import Result
from vkemu.exploration.run import Run
from vkemu.exploration.sharing.division import Division, Part
from vkemu.exploration.sharing.jobs import Hand, Job, Report, Task
from vkemu.exploration.sharing.parallel import Coordinator
from vkemu.workers.processes import Here

from tests.exploration.divided import broken, lastzero, locks, lost_update, naps, opaque, watched
from tests.exploration.generated import ANY, SHARING, Built, Source, sources


class Torn(Here):
    """Does the jobs in any order, and never much of one; sometimes there is no time for any."""

    def __init__(self, build: Any, task: Task, rng: Random) -> None:
        super().__init__({b"": Hand(build, task)})
        self.rng = rng

    def submit(self, job: Job) -> None:  # type: ignore[override]
        few, seconds = self.rng.randint(1, 4), self.rng.choice((0.0, 60.0))
        super().submit(job._replace(executions=few, seconds=seconds, most=seconds))

    def results(self) -> list[Report]:
        self._jobs.rotate(self.rng.randrange(len(self._jobs)))
        return super().results()


def torn(program: Any, strategy: str, seed: int, count: int = 3) -> Result:
    """The whole search, in as many parts as can be."""
    task = Task(strategy, 0, 10_000, False, "unknown", False)
    division = Division(late=getattr(program, "late", False))
    return divided(Torn(program, task, Random(seed)), count, division)


def divided(workers: Here, count: int, division: Division) -> Result:
    result = Result("", 0)
    coordinator = Coordinator(
        workers,
        count,
        result,
        stop_on_failure=False,
        max_executions=None,
        max_seconds=None,
        progress=None,
    )
    coordinator.exhaustive(division)
    return result


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("program", "traces"),
    [
        (partial(lastzero, n=4), 28),
        (partial(lastzero, n=5), 64),
        (lost_update, 36),
        (locks, 310),
        (watched, 2),
        (opaque, 6),
    ],
)
def test_no_trace_is_lost_or_had_twice(program: Any, traces: int, seed: int) -> None:
    assert torn(program, "dpor", seed).executions == traces


def test_what_two_parts_take_for_each_others_is_not_lost() -> None:
    """A step that slept, being explored elsewhere, once counted as explored two parts further on;
    it takes many parts."""

    def program(k: Any) -> None:
        reads = ("load", "x")
        Built(k, Source(((reads,), (("spawn", [("store", "x", 1)]), reads), (reads,))))

    whole = explore(program)
    for seed in range(3):
        assert torn(program, "dpor", seed, count=8).executions == whole.executions


def test_steps_that_count_as_readers_of_everything_add_up_in_parts() -> None:
    """What is written without being said makes every step meet it: much is abandoned."""

    def program(k: Any) -> None:
        x, q, p = k.cell("x"), k.queue("q"), k.queue("p")

        async def a() -> None:
            await k.select(q.get(), p.get())
            x.state = 1

        async def b() -> None:
            await q.put(1)
            await p.put(1)

        k.spawn("a", a)
        k.spawn("b", b)
        k.spawn("c", x.load)

    whole = explore(program)
    found = [torn(program, "dpor", seed) for seed in range(3)]
    assert {(one.executions, one.blocked) for one in found} == {(whole.executions, whole.blocked)}


class Late:
    """Who looks at x without an effect does so once two others are through: by then much has been
    counted that does not count."""

    identity = "late"

    def __init__(self) -> None:
        self.ended: Counter[Any] = Counter()

    def __call__(self, k: Any) -> None:
        x, y = k.cell("x", 0), k.cell("y", 0)
        self.cells = x, y

        async def look() -> None:
            if await y.load() == 2 and x.value:
                await y.store(9)

        k.spawn("look", look)
        for n in range(2):
            k.spawn(f"add {n}", y.add, 1)
        k.spawn("x", x.store, 1)
        k.spawn("other x", x.store, 1)

    def ending(self, run: Run) -> Any:
        return tuple(cell.value for cell in self.cells)

    def count(self, ending: Any, times: int) -> None:
        self.ended[ending] += times


class Telling(Torn):
    """Which jobs knew what."""

    def __init__(self, build: Any, seed: int) -> None:
        super().__init__(build, Task("dpor", 0, 10_000, True, "unknown", False), Random(seed))
        self.known: list[Learned] = []

    def submit(self, job: Job) -> None:  # type: ignore[override]
        self.known.append(job.learned)
        super().submit(job)


def test_what_was_counted_before_more_was_known_does_not_count(tmp_path: Path) -> None:
    whole = explore(Late())
    many = Late()
    workers = Telling(many, 1)
    found = explore(many, workers=workers, jobs=3)
    assert found.executions == many.ended.total() == whole.executions
    assert workers.known.index(workers.known[-1]) > 1  # jobs came back before it was known
    for bound in (whole.executions // 2, whole.executions + 1):
        part = Late()
        workers = Telling(part, bound)
        explore(part, workers=workers, jobs=3, checkpoint=tmp_path / "search", max_executions=bound)
    assert set(workers.known) == {workers.known[0]} != {Learned()}  # in the rest, from the start
    assert part.ended == many.ended


class Even(Here):
    """Every job is so many executions."""

    def submit(self, job: Job) -> None:  # type: ignore[override]
        super().submit(job._replace(executions=60, seconds=60.0))


class Kept(Division):
    """Counts the frontiers that there are at a time."""

    most = 0

    def take_back(self, part: Part, report: Report, wanted: int) -> None:
        super().take_back(part, report, wanted)
        found: dict[Part, None] = {}
        left = [part, *self.parts]
        while left:
            one = left.pop()
            if one not in found:
                found[one] = None
                left += one.given if one.giver is None else [*one.given, one.giver]
        self.most = max(self.most, len(found))


def test_nothing_is_abandoned_in_parts() -> None:
    task = Task("dpor", 0, 10_000, False, "unknown", False)
    program = partial(lastzero, n=9)
    kept = Kept()
    found = divided(Even({b"": Hand(program, task)}), 8, kept)
    assert (found.executions, found.blocked) == (1536, 0)
    assert kept.most <= 12  # of those who wait, too
    assert kept.done == pytest.approx(1)  # no more and no less, of all there is


def test_a_checkpoint_has_what_was_found_for_who_waits(tmp_path: Path) -> None:
    program = partial(lastzero, n=5)
    task = Task("dpor", 0, 10_000, False, "unknown", False)
    for bound in range(5, 70, 5):
        workers = Torn(program, task, Random(bound))
        found = explore(
            program, workers=workers, jobs=4, max_executions=bound, checkpoint=tmp_path / "search"
        )
    assert (found.executions, found.blocked, found.exhausted) == (64, 0, True)


@pytest.mark.parametrize("bound", [27, 28, 29])
def test_as_many_executions_as_there_may_be_are_no_end(bound: int) -> None:
    """Whether anything is left then nobody says, and not now and then who has it in parts."""
    program = partial(lastzero, n=4)
    one = explore(program, max_executions=bound)
    assert one.exhausted == (bound > 28)
    for jobs in range(1, 5):
        workers = Torn(program, Task("dpor", 0, 10_000, True, "unknown", False), Random(jobs))
        found = explore(program, workers=workers, jobs=jobs, max_executions=bound)
        assert (found.executions, found.verdict, found.exhausted, found.bound) == (
            one.executions, one.verdict, one.exhausted, one.bound,
        )  # fmt: skip


class Recalling(Here):
    """Whoever is done at once."""

    recalled = 0

    def recall(self) -> None:
        self.recalled += len(self._jobs)

    def results(self) -> list[Report]:
        job: Any = self._jobs.popleft()
        assert job.most > job.seconds
        return [Report(job.number, executions=1, left=Frontier())]


def test_who_has_all_the_work_is_recalled_for_who_has_none() -> None:
    workers = Recalling()
    assert divided(workers, 2, Division()).executions == 1
    assert workers.recalled == 1
    division = Division()
    division.parts.append(Part(Frontier()))
    assert divided(workers, 2, division).executions == 2
    assert workers.recalled == 2  # of the two, when the other was done


def test_a_job_that_is_recalled_comes_back_with_what_is_left() -> None:
    hand = Hand(partial(lastzero, n=4), Task("dpor", 0, 10_000, False, "unknown", False))
    job = Job(1, Frontier(), 100, 0.0, 1e9)
    assert hand.perform(job, lambda: True).executions == 0
    assert hand.perform(job).executions == 28


class Learning(Here):
    """The first two jobs find out something each, and say it one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.finds = ["x", "y"]
        self.known: list[Learned] = []

    def results(self) -> list[Report]:
        job: Any = self._jobs.popleft()
        self.known.append(job.learned)
        stale = Learned(exposed=((self.finds.pop(),),)) if self.finds else None
        return [Report(job.number, executions=1, left=Frontier(), stale=stale)]


def test_what_two_find_out_at_once_is_known_to_all() -> None:
    """Who has found it out does not say it again."""
    workers = Learning()
    coordinator = Coordinator(
        workers, 2, Result("dpor", 0), stop_on_failure=False, max_executions=None,
        max_seconds=None, progress=None,
    )  # fmt: skip
    division = Division()
    division.parts.append(Part(Frontier()))
    coordinator.exhaustive(division)
    assert [learned.exposed for learned in workers.known] == [(), (), (("y",), ("x",))]


@pytest.mark.parametrize("seed", range(3))
def test_no_interleaving_is_lost_or_had_twice(seed: int) -> None:
    assert torn(naps, "dfs", seed).executions == explore(naps, strategy="dfs").executions
    assert torn(lost_update, "dfs", seed).executions == 90


@pytest.mark.slow
@settings(
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(source=sources(ANY) | sources(SHARING), seed=st.integers(0, 100))
def test_parts_of_generated_programs_add_up(source: Source, seed: int) -> None:
    def program(k: Any) -> None:
        Built(k, source)

    whole = explore(program, stop_on_failure=False)
    assume(whole.executions < 300)
    parts = torn(program, "dpor", seed)
    assert (parts.executions, parts.failures) == (whole.executions, whole.failures)
    interleavings = explore(program, strategy="dfs", stop_on_failure=False, max_executions=400)
    if interleavings.exhausted:
        pieces = torn(program, "dfs", seed)
        assert pieces.executions == interleavings.executions
        assert pieces.failures == interleavings.failures


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dpor", "dfs", "random", "pct", "pos", "urw"])
def test_processes_find_what_one_finds(strategy: str) -> None:
    program = partial(lost_update, n=3)
    options: dict[str, Any] = {"strategy": strategy, "stop_on_failure": False}
    one = explore(program, **options, max_executions=200)
    four = explore(program, **options, max_executions=200, jobs=4)
    assert one.failure is not None
    assert four.failure is not None
    assert four.failure.token == one.failure.token
    assert (four.verdict, four.executions, four.failures) == ("fail", one.executions, one.failures)
    assert four.exhausted == one.exhausted


@pytest.mark.slow
def test_the_first_failing_execution_is_the_same_in_many_processes() -> None:
    program = partial(lost_update, n=2)
    one = explore(program, strategy="random", seed=7)
    four = explore(program, strategy="random", seed=7, jobs=4)
    assert four.executions == one.executions


def test_a_program_others_cannot_import_is_refused() -> None:
    def program(k: Any) -> None:
        lost_update(k)

    with pytest.raises(ExplorationError, match=r"cannot import the program .*module"):
        explore(program, jobs=2)


@pytest.mark.slow
def test_an_error_of_the_set_up_comes_back() -> None:
    with pytest.raises(LookupError, match="no such thing"):
        explore(broken, jobs=2)


def test_a_strategy_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ExplorationError, match="bounded cannot be divided"):
        explore(lost_update, strategy="bounded", jobs=2)


@pytest.mark.parametrize("strategy", ["dpor", "dfs"])
def test_a_checkpoint_is_taken_up(tmp_path: Path, strategy: str) -> None:
    program = partial(lastzero, n=4) if strategy == "dpor" else partial(lost_update, n=3)
    file = tmp_path / "search"
    whole = explore(program, strategy=strategy, stop_on_failure=False)
    for limit in (5, 12, 20):
        part = explore(
            program,
            strategy=strategy,
            stop_on_failure=False,
            checkpoint=str(file),
            max_executions=limit,
        )
        assert part.executions == limit
        assert not part.exhausted
    rest = explore(program, strategy=strategy, stop_on_failure=False, checkpoint=str(file))
    assert rest.exhausted
    assert (rest.executions, rest.failures) == (whole.executions, whole.failures)
    done = explore(program, strategy=strategy, stop_on_failure=False, checkpoint=str(file))
    assert (done.executions, done.verdict) == (whole.executions, whole.verdict)


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "search")
    explore(partial(lastzero, n=4), checkpoint=file, max_executions=3)
    with pytest.raises(ExplorationError, match="the program is another one"):
        explore(lost_update, checkpoint=file)
    with pytest.raises(ExplorationError, match="made with"):
        explore(partial(lastzero, n=4), checkpoint=file, strategy="dfs")


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"cos\nsystem\n(S'true'\ntR."])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "search"
    file.write_bytes(content)
    with pytest.raises(ExplorationError, match=r"checkpoint .*search: "):
        explore(lost_update, checkpoint=str(file))
