"""`explore` and `replay` for programs of either kind: of ours, or of an event loop's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vkemu.exploration import exploring, replaying
from vkemu.exploration.result import Failure, Result, Unseen


def explore(program: Callable[..., Any], *, backend: str | None = None, **options: Any) -> Result:
    """Run `program` under many schedules and say what was found: see `exploration.exploring`.

    With `backend` ("trio", "asyncio", "anyio+asyncio" or "anyio+trio") `program` is an async
    function without arguments, written for that library and not for us. `time` is "idle" (it passes
    when nobody can run) or "any"; `order` is asyncio's: "arrival" (callbacks in order, as asyncio
    promises) or "any"; `cancel` is "everywhere" (the program may be cancelled at any checkpoint,
    once) or the name of a function whose tasks may be; `instrument` names the packages whose code
    is followed, when that is not all the program leads to.
    """
    if backend is None:
        return exploring.explore(program, **options)
    from vkemu.worlds.async_program import OPTIONS, AsyncProgram

    of_world = {name: options.pop(name) for name in OPTIONS if name in options}
    with AsyncProgram(program, backend, **of_world).entered() as build:
        try:
            return exploring.explore(build, **options)
        except Unseen as error:  # of a search in parts
            result = Result(str(options.get("strategy", "dpor")), int(options.get("seed", 0)))
            result.doubt = str(error)
            return result


def replay(
    program: Callable[..., Any], token: str, *, backend: str | None = None, **options: Any
) -> Failure:
    """Take the schedule of `token` again and return its failure: see `exploration.replaying`."""
    if backend is None:
        return replaying.replay(program, token, **options)
    from vkemu.worlds.async_program import OPTIONS, AsyncProgram

    of_world = {name: options.pop(name) for name in OPTIONS if name in options}
    with AsyncProgram(program, backend, **of_world).entered() as build:
        return replaying.replay(build, token, **options)
