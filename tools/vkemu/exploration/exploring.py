"""`explore`: search the interleavings of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike, fspath
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal

from vkemu.executors.deadline import within
from vkemu.exploration.arguments import check_arguments
from vkemu.exploration.checking.audit import audit_of
from vkemu.exploration.checking.guards import enforcing
from vkemu.exploration.program import Program, program_for
from vkemu.exploration.result import ExplorationError, Result, Unseen
from vkemu.exploration.run import Run
from vkemu.exploration.search import Progress, Search
from vkemu.exploration.strategies import strategy_named

if TYPE_CHECKING:
    from vkemu.exploration.failure.witness import Witness
    from vkemu.exploration.reduction.footprint import Learned
    from vkemu.workers.job import Workers

ALONE: Final = (
    "one interleaving is all there is: no steps of different threads meet, but in an order that "
    "cannot be another"
)


@enforcing
def explore(
    program: Callable[[Any], object],
    *,
    strategy: Any = "dpor",
    seed: int = 0,
    max_executions: int | None = None,
    max_seconds: float | None = None,
    max_steps: int = 10_000,
    stop_on_failure: bool = True,
    jobs: int = 1,
    on_step_bound: Literal["unknown", "fail"] = "unknown",
    check: bool = False,
    progress: Progress | None = None,
    each: Callable[[Run], None] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    workers: Workers | None = None,
) -> Result:
    """Run `program(k)` under many schedules and say what was found.

    `strategy` is a name or an object with `choose(runnable, execution)`. The verdict is "fail" when
    a failure was found, else "unknown" when an execution reached `max_steps`, when the user
    interrupted, or when an exhaustive strategy ran out of its budget, else "pass".

    `progress` is called with the unfinished result a few times a second, `each` with the `Run` of
    every complete execution (its `error`, its `schedule`, and the program's objects as it left
    them; again of all when a search finds out that more matters, and begins again). `jobs`
    processes share the work; the program must then be one that they can import. `checkpoint` is
    a file that says what is left of an exhaustive search: written every few seconds and at the end,
    read when it exists. `workers` does the jobs elsewhere, see `vkemu.workers`.
    """
    check_arguments(
        strategy=strategy, seed=seed, max_executions=max_executions, max_seconds=max_seconds,
        max_steps=max_steps, jobs=jobs, on_step_bound=on_step_bound, progress=progress, each=each,
        checkpoint=checkpoint, workers=workers, check=check, stop_on_failure=stop_on_failure,
    )  # fmt: skip
    if checkpoint is not None:
        checkpoint = fspath(checkpoint)
    deadline = None if max_seconds is None else perf_counter() + max_seconds
    built = program_for(program, {}, check=check)
    chosen, name = chosen_strategy(strategy, seed, built)
    exhaustive = getattr(chosen, "exhaustive", False)
    executions_default = 1000  # of a strategy that never ends by itself, without a budget
    if max_executions is None and max_seconds is None and not exhaustive:
        max_executions = executions_default
    result = Result(name, seed)
    fails = on_step_bound == "fail"
    run = Run(built, max_steps, stop_on_failure=stop_on_failure, bound_fails=fails)
    witnesses: Iterable[Witness]
    if jobs > 1 or checkpoint is not None or workers is not None:
        check_divisible(strategy, each, checkpoint)
        from vkemu.exploration.sharing.jobs import Task
        from vkemu.exploration.sharing.parallel import explore_in_parts

        task = Task(name, seed, max_steps, stop_on_failure, on_step_bound, check)
        witnesses, ended, learned, forms = explore_in_parts(
            program, task, result, jobs=jobs, workers=workers, checkpoint=checkpoint,
            max_executions=max_executions, max_seconds=max_seconds, progress=progress,
        )  # fmt: skip
        audit_parts(run, result, learned, forms)
    else:
        search = Search(
            run, chosen, result,
            max_executions=max_executions, max_seconds=max_seconds, progress=progress, each=each,
        )  # fmt: skip
        ended = went(search, max_seconds) and (search.finished or not exhaustive)
        witnesses = search.witnesses.values()
    result.at_failure = stop_on_failure and result.failures > 0 and not result.exhausted
    concluded(result, run, witnesses, ended, progress, deadline)
    return bounded(result, max_executions, max_seconds, max_steps)


def audit_parts(run: Run, result: Result, learned: Learned, forms: set[int]) -> None:
    """What parts have found out is known here, too. Have they left out anything?"""
    run.program.numbers.learn(learned)
    if not result.exhausted:
        return
    audit = audit_of(run)
    audit.forms = forms
    try:
        if audit.learned():
            result.doubt = "an execution looks at more than the search had known of"
    except Unseen as error:
        result.doubt = str(error)
    result.exhausted = not result.doubt


def went(search: Search, max_seconds: float | None) -> bool:
    """Whether the search came to an end of its own, between two executions."""
    result, run = search.result, search.run
    try:
        with within(max_seconds, lambda: (result.steps, len(run.schedule))):
            search.go()
    except KeyboardInterrupt as stop:
        result.stopped(stop)
        return False
    return True


def chosen_strategy(strategy: Any, seed: int, program: Program) -> tuple[Any, str]:
    """It, and its name."""
    if isinstance(strategy, str):
        return strategy_named(strategy, seed, program.numbers), strategy
    return strategy, getattr(strategy, "name", type(strategy).__name__)


def check_divisible(strategy: Any, each: object, checkpoint: object) -> None:
    saved = ("dfs", "dpor")
    if checkpoint is not None and strategy not in saved:
        name = strategy if isinstance(strategy, str) else type(strategy).__name__
        raise ExplorationError(f"checkpoint: {name} cannot be saved, expected dfs or dpor")
    divisible = ("dfs", "dpor", "random", "pct", "pos", "urw")
    if not isinstance(strategy, str) or strategy.partition(":")[0] not in divisible:
        name = strategy if isinstance(strategy, str) else type(strategy).__name__
        raise ExplorationError(f"jobs: {name} cannot be divided, only {', '.join(divisible)}")
    if each is not None:
        raise ExplorationError("jobs: each() would be called in other processes")


def concluded(
    result: Result,
    run: Run,
    witnesses: Iterable[Witness],
    ended: bool,
    progress: Progress | None = None,
    deadline: float | None = None,
) -> Result:
    """The verdict, and the failure shrunk and told. `ended`: all that was asked for was done."""
    witnesses = list(witnesses)
    result.kinds = sorted({witness.message for witness in witnesses})
    learned = run.program.numbers.learned()
    result.remarks = learned.remarks()
    alone = result.exhausted and result.executions == 1 and not learned.ended
    if alone and threads_of(run) > 1:
        result.remarks.append(ALONE)
    if witnesses:
        from vkemu.exploration.failure.budget import INTERRUPTED
        from vkemu.exploration.replaying import failure_of_witnesses

        def say(stage: str) -> None:
            result.stage = stage
            assert progress is not None
            progress(result)

        result.verdict = "fail"
        told = say if progress is not None else None
        try:
            result.failure = failure_of_witnesses(witnesses, run, told, deadline)
        except Unseen as error:  # a failure that cannot be had again
            result.verdict = "unknown"
            result.doubt = str(error)
            return result
        result.interrupted = result.interrupted or result.failure.shrunk.endswith(INTERRUPTED)
    elif result.cut or not ended or result.doubt:
        result.verdict = "unknown"
    else:
        result.verdict = "pass"
    return result


def threads_of(run: Run) -> int:
    """How many it has, as the last execution left them; of a search in parts, from the start."""
    if not run.schedule:
        run.begin()
        run.execution.close()
    return len(run.execution.threads)


def bounded(
    result: Result, max_executions: int | None, max_seconds: float | None, max_steps: int
) -> Result:
    """Say of an unknown verdict what made it one."""
    if result.verdict != "unknown":
        return result
    if result.interrupted:
        result.bound = "interrupted"
    elif result.stuck:
        result.bound = f"{max_seconds:g} s, the last of them without a step, at {result.stuck}"
    elif result.cut:
        result.bound = f"{max_steps:,} steps in an execution"
    elif max_executions is not None and result.executions + result.blocked >= max_executions:
        result.bound = f"{max_executions:,} executions"
    elif max_seconds is not None:
        result.bound = f"{max_seconds:g} s"
    return result
