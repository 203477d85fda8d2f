"""The pytest plugin: the `vkemu` marker, replay of one schedule, and a live host for trio tests.

Every pytest run in an environment with vkemu loads this module: it imports nothing heavy.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Generator, Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from vkemu.testing.explored import (
    SETTINGS,
    ScheduleFailure,
    Settings,
    check_options,
    explored,
    is_explored,
    takes_k,
)

if TYPE_CHECKING:
    from vkemu.testing.live_host import LiveGuest, LiveHost

MARK: Final = "vkemu"
REPLAY: Final = "vkemu_replay"  # of a report's user_properties: the command that replays it

# Ini name -> (what reads it, what it is).
INI: Final = {
    "vkemu_strategy": (str, "strategy of explored tests (default: dpor)"),
    "vkemu_seed": (int, "seed of explored tests (default: 0)"),
    "vkemu_max_executions": (int, "executions an explored test may take"),
    "vkemu_max_seconds": (float, "seconds an explored test may take"),
    "vkemu_max_steps": (int, "steps one execution of an explored test may take"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vkemu", "vkemu: tests over many schedules")
    group.addoption("--vkemu-seed", type=int, metavar="N", help="seed of every explored test")
    group.addoption(
        "--vkemu-replay", metavar="TOKEN", help="take this schedule only, of the one test selected"
    )
    for name, (_, text) in INI.items():
        parser.addini(name, text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "vkemu(strategy=, seed=, max_executions=, max_seconds=, max_steps=, on_step_bound=, "
        "check=, unknown=): run a test that takes `k` under many schedules; with backend=, time=, "
        "order=, cancel=, instrument= an async one as it stands",
    )
    config.addinivalue_line(
        "markers", "vkhost(policy=, mutants=, checks=, **host): the host of fixture `vkhost`"
    )
    _defaults(config)
    token = config.getoption("--vkemu-replay")
    if token is not None:
        from vkemu.exploration.result import TokenError
        from vkemu.exploration.token import parse

        try:
            parse(token)
        except TokenError as error:
            raise pytest.UsageError(f"--vkemu-replay: {error}") from None


def _defaults(config: pytest.Config) -> dict[str, Any]:
    """What the ini file says."""
    found = {}
    for name, (kind, _) in INI.items():
        text = config.getini(name)
        if text:
            try:
                found[name.removeprefix("vkemu_")] = kind(text)
            except ValueError:
                raise pytest.UsageError(
                    f"{name} = {text!r} in the ini file, expected a number"
                ) from None
    return found


# -- collection ----------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Any:
    """A marked test that takes `k` is collected as the plain test `explored` makes of it."""
    if not callable(obj) or isinstance(obj, type) or is_explored(obj):
        return None
    if not collector.istestfunction(obj, name):
        return None
    own = [mark for mark in getattr(obj, "pytestmark", ()) if mark.name == MARK]
    if not own and collector.get_closest_marker(MARK) is None:
        return None
    if not takes_k(obj) and not (own and iscoroutinefunction(obj)):
        if own:
            raise collector.CollectError(f"{name}: marked vkemu, but it takes no argument 'k'")
        return None
    # pytest looks the function up again, by its name, before it calls it.
    test = explored()(obj)
    setattr(collector.obj, name, test)
    return collector.ihook.pytest_pycollect_makeitem(collector=collector, name=name, obj=test)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
    """An async fixture of an async test that is explored, and what is made of one, is made anew in
    every execution. Before other plugins see that it is async."""
    if not getattr(getattr(request.node, "obj", None), "vkemu_async", False):
        return (yield)
    from vkemu.testing.world_test import in_world

    real = fixturedef.func
    arguments = {name: request.getfixturevalue(name) for name in fixturedef.argnames}
    value = in_world(fixturedef.argname, real, arguments, request.instance)
    if value is not None:
        fixturedef.func = lambda **_: value
    try:
        return (yield)
    finally:
        fixturedef.func = real


def pytest_itemcollected(item: pytest.Item) -> None:
    """`-m vkemu` selects decorated tests too."""
    if isinstance(item, pytest.Function) and is_explored(item.obj):
        _marked(item)
        if item.get_closest_marker(MARK) is None:
            item.add_marker(MARK)


def _marked(item: pytest.Item) -> dict[str, Any]:
    """The options of its markers, the closest ones counting."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers(MARK))):
        try:
            if mark.args:
                raise TypeError("takes keywords only, as in vkemu(strategy='dpor')")
            check_options(mark.kwargs)
        except TypeError as error:
            raise pytest.UsageError(f"{item.nodeid}: marker vkemu: {error}") from None
        options.update(mark.kwargs)
    return options


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("--vkemu-replay") is None or session.config.option.collectonly:
        return
    selected = [item for item in session.items if item.get_closest_marker(MARK) is not None]
    if len(selected) != 1 and not hasattr(session.config, "workerinput"):
        raise pytest.UsageError(
            f"--vkemu-replay: {len(selected)} explored tests are selected, expected one: "
            "name it, as in `pytest FILE::TEST --vkemu-replay TOKEN`"
        )


# -- running and reporting -----------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if item.get_closest_marker(MARK) is None:
        return (yield)
    config = item.config
    seed = config.getoption("--vkemu-seed")
    settings = Settings(
        defaults=_defaults(config),
        marked=_marked(item),
        forced={} if seed is None else {"seed": seed},
        token=config.getoption("--vkemu-replay"),
        anyio_backend=getattr(item, "funcargs", {}).get("anyio_backend"),
    )
    outer = SETTINGS.set(settings)
    try:
        return (yield)
    finally:
        SETTINGS.reset(outer)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None:
        if isinstance(call.excinfo.value, ScheduleFailure) and _without_lines(call.excinfo):
            report.longrepr = call.excinfo.getrepr(style="value")
        for failure in _schedules(call.excinfo.value):
            line = replay_line(item, failure.token)
            report.sections.append(("vkemu", f"{failure.narration}\nreplay: {line}"))
            report.user_properties.append((REPLAY, line))
    return report


def _without_lines(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    """A deadlock, say, happens in no line of the test: a traceback would show ours alone."""
    module = excinfo.traceback[-1].frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in {"vkemu", "vkprotocol"}


def _schedules(error: BaseException | None) -> Iterator[ScheduleFailure]:
    """The failing schedules an error is about; a group may hold several."""
    if isinstance(error, ScheduleFailure):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _schedules(inner)
    elif error is not None:
        yield from _schedules(error.__cause__)


def replay_line(item: pytest.Item, token: str) -> str:
    """The command that takes the schedule again, from where pytest was started."""
    start = item.config.invocation_params.dir
    path = Path(os.path.relpath(item.path, start)).as_posix()
    _, colons, inside = item.nodeid.partition("::")
    return f"pytest {shlex.quote(path + colons + inside)} --vkemu-replay={token}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line to paste for every failing schedule, just above the short summary."""
    lines = [
        value
        for report in terminalreporter.stats.get("failed", ())
        for name, value in getattr(report, "user_properties", ())
        if name == REPLAY
    ]
    if lines:
        terminalreporter.write_sep("=", "vkemu: replay a failing schedule")
        for line in lines:
            terminalreporter.write_line(line)


# -- fixtures for pytest-trio --------------------------------------------------------------------


@pytest.fixture
async def vkhost(request: pytest.FixtureRequest, nursery: Any) -> AsyncIterator[LiveHost]:
    """A host kernel running in the test's nursery, with the oracle attached.

    Chosen by `@pytest.mark.vkhost(policy=..., pages=...)`, or indirectly: a policy's name, or a
    dict of such options. A violation that the test has not met by awaiting a guest fails it at the
    end.
    """
    from vkemu.testing.live_host import LiveHost

    options: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("vkhost"))):
        options.update(mark.kwargs)
    param = getattr(request, "param", {})
    options.update({"policy": param} if isinstance(param, str) else param)
    host = LiveHost(**options)
    nursery.start_soon(host.run)
    try:
        yield host
    except BaseException:
        host.abandon()
        raise
    await host.aclose()


@pytest.fixture
def vkguest_factory(vkhost: LiveHost) -> type[LiveGuest] | Any:
    """`vkguest_factory(workloads=["touch"], memory="2M", ...)` boots a guest on `vkhost`; await
    what it returns for the guest's results."""
    return vkhost.boot
