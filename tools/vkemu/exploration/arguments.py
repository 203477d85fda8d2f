"""What `explore` and `replay` may be asked: everything else is one line that says what was."""

from __future__ import annotations

from os import PathLike
from typing import Any, Final

from vkemu.exploration.expected import flag, seconds, whole, wrong
from vkemu.exploration.strategies import NAMES

TOKEN: Final = "a token as explore prints it, vkx1...."


def check_arguments(
    *,
    strategy: Any,
    seed: Any,
    max_executions: Any,
    max_seconds: Any,
    max_steps: Any,
    jobs: Any,
    on_step_bound: Any,
    progress: Any,
    each: Any,
    checkpoint: Any,
    workers: Any,
    check: Any,
    stop_on_failure: Any,
) -> None:
    """TypeError or ValueError, which names the argument and says what was expected."""
    check_strategy(strategy)
    whole("seed", seed, None)
    if max_executions is not None:
        whole("max_executions", max_executions, 0)
    if max_seconds is not None:
        seconds("max_seconds", max_seconds)
    whole("max_steps", max_steps, 0)
    whole("jobs", jobs, 1)
    flag("check", check)
    flag("stop_on_failure", stop_on_failure)
    answers = ("unknown", "fail")
    if on_step_bound not in answers:
        raise wrong("on_step_bound", on_step_bound, " or ".join(map(repr, answers)))
    for name, called in (("progress", progress), ("each", each)):
        if called is not None and not callable(called):
            raise wrong(name, called, "a function or None", TypeError)
    if checkpoint is not None and not isinstance(checkpoint, str | PathLike):
        raise wrong("checkpoint", checkpoint, "the path of a file or None", TypeError)
    methods = ("submit", "results", "close")
    if workers is not None and not all(callable(getattr(workers, m, None)) for m in methods):
        raise wrong("workers", workers, f"an object with {', '.join(methods)}", TypeError)


def check_strategy(strategy: Any) -> None:
    """Whether a name is one of them, `strategy_named` says."""
    if isinstance(strategy, str):
        return
    methods = (getattr(strategy, "choose", None), getattr(strategy, "conduct", None))
    if isinstance(strategy, type) or not any(map(callable, methods)):
        expected = f"one of {', '.join(NAMES)}, or an object with choose(runnable, execution)"
        raise wrong("strategy", strategy, expected, TypeError)


def check_token(token: Any) -> None:
    if not isinstance(token, str):
        raise wrong("token", token, TOKEN, TypeError)
