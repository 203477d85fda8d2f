"""`explored`: a test over many schedules.

An async test that takes no `k` is explored as it stands: see `world_test`.
The test's `k` is what `explore` gives to a program. An async test is the first thread of it, a
plain one builds it; its other arguments are fixtures, made once for all schedules. What is left is
an ordinary plain test, so that no async plugin has to know about it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from inspect import Parameter, Signature, iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vkemu.exploration import Failure

OPTIONS: Final = (
    "strategy", "seed", "max_executions", "max_seconds", "max_steps", "on_step_bound", "check",
    "unknown", "backend", "time", "order", "cancel", "instrument", "random", "clock",
)  # fmt: skip
K: Final = "k"
ROOT: Final = "test"  # the name of an async test's own thread


class ScheduleFailure(AssertionError):
    """The test fails under some schedule; `narration` tells it, `token` replays it."""

    def __init__(self, message: str, narration: str, token: str) -> None:
        super().__init__(message)
        self.narration = narration
        self.token = token


class Undecided(AssertionError):
    """No schedule failed, and not all were tried that had to be: neither pass nor fail."""


@dataclass(slots=True)
class Settings:
    """What a plugin adds to the options of the test it is about to run."""

    defaults: Mapping[str, Any] = field(default_factory=dict)  # the ini file's
    marked: Mapping[str, Any] = field(default_factory=dict)
    forced: Mapping[str, Any] = field(default_factory=dict)  # the command line's
    token: str | None = None  # this schedule, and no other
    anyio_backend: Any = None  # as the fixture of this name says


SETTINGS: Final[ContextVar[Settings | None]] = ContextVar("vkemu_settings", default=None)


def explored(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Run the test under every schedule that matters, or as `options` say.

    `strategy`, `seed`, `max_executions`, `max_seconds`, `max_steps`, `on_step_bound` and `check`
    are those of `explore`, as are `backend`, `time`, `order`, `cancel` and `instrument` of an async
    test that takes no `k`; without a budget it has SECONDS_DEFAULT seconds. `unknown="pass"` lets a
    test pass whose search ran out of its budget.
    """
    check_options(options)
    return lambda test: _explored(test, options)


def check_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"explored: no option {name!r}, expected one of {', '.join(OPTIONS)}")
    if options.get("unknown", "fail") not in {"fail", "pass"}:
        raise TypeError(f"explored: unknown={options['unknown']!r}, expected 'fail' or 'pass'")


def takes_k(test: Callable[..., Any]) -> bool:
    return K in signature(test).parameters


def is_explored(test: object) -> bool:
    return getattr(test, "vkemu_options", None) is not None


def _explored(test: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., None]:
    if iscoroutinefunction(test) and not takes_k(test):
        from vkemu.testing.world_test import explored_async

        return explored_async(test, options, run_schedules, anyio_backend)
    if not callable(test) or not takes_k(test):
        raise TypeError(f"explored: {test!r} takes no argument {K!r}")
    if hasattr(test, "hypothesis"):
        return _around_given(test, options)
    asynchronous = iscoroutinefunction(test)
    names = tuple(without_k(test).parameters)

    @wraps(test)
    def explored_test(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        kwargs.update(zip(names, args, strict=False))  # `k` may come before what was positional

        def program(k: Any) -> None:
            async def root() -> None:
                k.joinable = True  # the threads the test spawns, not its own
                await test(**kwargs, k=k)

            if asynchronous:
                k.spawn(ROOT, root)
            else:
                test(**kwargs, k=k)

        program.__qualname__ = test.__qualname__
        run_schedules(program, options)

    explored_test.__signature__ = without_k(test)  # type: ignore[attr-defined]
    explored_test.vkemu_options = dict(options)  # type: ignore[attr-defined]
    return explored_test


def anyio_backend() -> Any:
    """Of the pytest item under way, whether its test takes it or not."""
    settings = SETTINGS.get()
    return None if settings is None else settings.anyio_backend


def _around_given(test: Any, options: Mapping[str, Any]) -> Callable[..., None]:
    """@explored outside @given: every example is explored, and `given` sees no `k`."""
    inner = _explored(test.hypothesis.inner_test, options)

    def example(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        kwargs.pop(K, None)
        inner(*args, **kwargs)

    test.hypothesis.inner_test = example

    @wraps(test)
    def given_test(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        test(*args, **kwargs, k=None)

    given_test.__signature__ = without_k(test)  # type: ignore[attr-defined]
    given_test.vkemu_options = dict(options)  # type: ignore[attr-defined]
    return given_test


def without_k(test: Callable[..., Any]) -> Signature:
    known = signature(test)
    rest: list[Parameter] = [p for name, p in known.parameters.items() if name != K]
    return known.replace(parameters=rest, return_annotation=None)


def run_schedules(program: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Explore, or replay; raise what is wrong."""
    __tracebackhide__ = True
    from vkemu.worlds.exploring import explore

    settings = SETTINGS.get() or Settings()
    merged = {**settings.defaults, **options, **settings.marked, **settings.forced}
    if settings.token is not None:
        again = ("check", "backend", "time", "order", "cancel", "instrument", "random", "clock")
        replay_schedule(program, settings.token, {n: merged[n] for n in again if n in merged})
        return
    unknown = merged.pop("unknown", "fail")
    seconds_default = 30.0
    if merged.get("max_executions") is None:
        merged.setdefault("max_seconds", seconds_default)
    result = explore(program, **merged)
    counts = f"{result.executions:,} executions by {result.strategy}, seed {result.seed}"
    failure = result.failure
    if failure is not None:
        plural = "" if failure.preemptions == 1 else "s"
        raise told(failure, f"after {counts}; {failure.preemptions} preemption{plural}")
    if result.verdict == "unknown" and unknown == "fail":
        reason = f"the budget is used up: {result.bound}"
        if result.cut:
            reason = f"{result.cut:,} cut at max_steps: {result.bound}"
        reason = result.doubt or reason
        raise Undecided(
            f"not decided: no failure in {counts}, but {reason} "
            "(a larger budget, another strategy, or unknown='pass')"
        )


def replay_schedule(program: Callable[..., Any], token: str, options: Mapping[str, Any]) -> None:
    __tracebackhide__ = True
    from vkemu.exploration import TokenError
    from vkemu.worlds.exploring import replay

    try:
        failure = replay(program, token, **options)
    except TokenError as error:
        _reject_example()
        raise AssertionError(f"replay: {error}") from None
    raise told(failure, "replayed")


def told(failure: Failure, how: str) -> ScheduleFailure:
    """With the traceback of what went wrong, where the test's own lines are."""
    error = failure.error
    more = str(error).strip().splitlines()[1:]  # what an assertion has to say
    message = "\n".join([f"{failure.message} ({how})", *more])
    found = ScheduleFailure(message, str(failure), failure.token)
    return found.with_traceback(None if error is None else error.__traceback__)


def _reject_example() -> None:
    """Under hypothesis the token is of one example: the others are not what it was made from."""
    if "hypothesis" in sys.modules:
        import hypothesis

        if hypothesis.currently_in_test_context():
            hypothesis.reject()
