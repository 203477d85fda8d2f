"""`explore`: search the interleavings of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from vkemu.exploration.program import Program
from vkemu.exploration.result import Result
from vkemu.exploration.run import Run
from vkemu.exploration.search import Progress, Search
from vkemu.exploration.strategies import strategy_named

EXECUTIONS_DEFAULT = 1000  # of a strategy that never ends by itself, when no budget is given


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
) -> Result:
    """Run `program(k)` under many schedules and say what was found.

    `strategy` is a name or an object with `choose(runnable, execution)`. The verdict is "fail" when
    a failure was found, else "unknown" when an execution reached `max_steps`, when the user
    interrupted, or when an exhaustive strategy ran out of its budget, else "pass".
    `progress` is called with the unfinished result a few times a second, `each` with the `Run` of
    every complete execution (its `error`, its `schedule`, and the program's objects as it left
    them).
    """
    built = Program(program, {}, check=check)
    if isinstance(strategy, str):
        name = strategy
        chosen = strategy_named(name, seed, built.numbers)
    else:
        chosen = strategy
        name = getattr(strategy, "name", type(strategy).__name__)
    exhaustive = getattr(chosen, "exhaustive", False)
    if max_executions is None and max_seconds is None and not exhaustive:
        max_executions = EXECUTIONS_DEFAULT
    result = Result(name, seed)
    run = Run(
        built, max_steps, stop_on_failure=stop_on_failure, bound_fails=on_step_bound == "fail"
    )
    search = Search(
        run, chosen, result,
        max_executions=max_executions, max_seconds=max_seconds, progress=progress, each=each,
    )  # fmt: skip
    interrupted = False
    try:
        search.go()
    except KeyboardInterrupt:
        interrupted = True
    if search.witness is not None:
        from vkemu.exploration.replaying import failure_of_witness

        result.verdict = "fail"
        result.failure = failure_of_witness(search.witness, run)
    elif result.cut or interrupted or (exhaustive and not search.finished):
        result.verdict = "unknown"
    else:
        result.verdict = "pass"
    return result
