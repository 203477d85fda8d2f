"""An async test as it stands, of pytest-trio, AnyIO's plugin or asyncio, over many schedules.

Its async fixtures are set up and torn down in every execution, by its own event loop; all others
once. `nursery` is pytest-trio's.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from functools import wraps
from typing import Any, cast


class AsyncFixture:
    """In place of the value of an async fixture, until an execution makes it."""

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self.function = function
        self.arguments = arguments

    async def make(self, stack: AsyncExitStack, made: dict[int, Any]) -> Any:
        if id(self) in made:
            return made[id(self)]
        arguments = {
            name: await value_of(value, stack, made) for name, value in self.arguments.items()
        }
        if inspect.isasyncgenfunction(self.function):
            generator = self.function(**arguments)
            found = await generator.__anext__()
            stack.push_async_callback(finish, generator)
        else:
            found = await self.function(**arguments)
        made[id(self)] = found
        return found


async def finish(generator: Any) -> None:
    async for _ in generator:
        raise RuntimeError("an async fixture yields more than once")


async def value_of(value: Any, stack: AsyncExitStack, made: dict[int, Any]) -> Any:
    return await value.make(stack, made) if isinstance(value, AsyncFixture) else value


async def nursery() -> AsyncIterator[Any]:
    """In place of pytest-trio's fixture."""
    import trio

    async with trio.open_nursery() as opened:
        yield opened
        opened.cancel_scope.cancel()


def made_in_world(name: str, function: Any) -> Callable[..., Any] | None:
    """What makes an async fixture; None for all others."""
    nursery_name = "nursery"
    if name == nursery_name and function.__module__.startswith("pytest_trio"):
        return nursery
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return cast("Callable[..., Any]", function)
    return None


def explored_async(
    test: Callable[..., Any],
    options: Mapping[str, Any],
    run: Callable[[Callable[..., Any], Mapping[str, Any]], None],
) -> Callable[..., None]:
    """The plain test that takes `test` through its schedules: `run(main, options)`."""

    @wraps(test)
    def explored_test(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        kwargs.update(zip(inspect.signature(test).parameters, args, strict=False))
        as_it_is = not any(isinstance(value, AsyncFixture) for value in kwargs.values())

        async def main() -> None:
            if as_it_is:
                await test(**kwargs)
                return
            made: dict[int, Any] = {}
            async with AsyncExitStack() as stack:
                given = {n: await value_of(v, stack, made) for n, v in kwargs.items()}
                await test(**given)

        main.__name__ = test.__name__
        main.__qualname__ = test.__qualname__
        main.__module__ = test.__module__
        run(main, {"backend": backend_of(test, kwargs), **options})

    known = inspect.signature(test)
    plain = known.replace(return_annotation=None)
    explored_test.__signature__ = plain  # type: ignore[attr-defined]
    explored_test.vkemu_options = dict(options)  # type: ignore[attr-defined]
    explored_test.vkemu_async = True  # type: ignore[attr-defined]
    return explored_test


def backend_of(test: Any, given: Mapping[str, Any]) -> str:
    """What the test is written for: as AnyIO's fixture, a mark or its module's imports say."""
    asked = given.get("anyio_backend")
    if asked is not None:
        return f"anyio+{asked if isinstance(asked, str) else asked[0]}"
    marks = {mark.name for mark in getattr(test, "pytestmark", ())}
    names = vars(inspect.getmodule(test) or object)
    for library, backend in (
        ("trio", "trio"),
        ("anyio", "anyio+asyncio"),
        ("asyncio", "asyncio"),
    ):
        if library in marks:
            return backend
    for library, backend in (
        ("trio", "trio"),
        ("anyio", "anyio+asyncio"),
        ("asyncio", "asyncio"),
    ):
        if inspect.ismodule(names.get(library)):
            return backend
    raise TypeError(
        f"explored: {test.__qualname__} takes no argument 'k', and is of no event loop that can be "
        "told; expected backend='trio', 'asyncio' or 'anyio+asyncio'"
    )
