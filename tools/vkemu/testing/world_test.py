"""An async test as it stands, of pytest-trio, AnyIO's plugin or asyncio, over many schedules.

Its async fixtures are set up and torn down in every execution, by its own event loop; all others
once. `nursery` is pytest-trio's.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from functools import wraps
from typing import Any


class AsyncFixture:
    """In place of the value of an async fixture, or of one that takes one, until an execution makes
    it."""

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self.function = function
        self.arguments = arguments

    async def make(self, stack: AsyncExitStack, made: dict[int, Any]) -> Any:
        if id(self) in made:
            return made[id(self)]
        arguments = {
            name: await value_of(value, stack, made) for name, value in self.arguments.items()
        }
        found = self.function(**arguments)
        if inspect.isasyncgenfunction(self.function):
            stack.push_async_callback(finish, found)
            found = await anext(found)
        elif inspect.isgeneratorfunction(self.function):
            stack.callback(end, found)
            found = next(found)
        elif inspect.iscoroutinefunction(self.function):
            found = await found
        made[id(self)] = found
        return found


async def finish(generator: Any) -> None:
    async for _ in generator:
        raise RuntimeError("an async fixture yields more than once")


def end(generator: Any) -> None:
    for _ in generator:
        raise RuntimeError("a fixture yields more than once")


async def value_of(value: Any, stack: AsyncExitStack, made: dict[int, Any]) -> Any:
    return await value.make(stack, made) if isinstance(value, AsyncFixture) else value


async def nursery() -> AsyncIterator[Any]:
    """In place of pytest-trio's fixture."""
    import trio

    async with trio.open_nursery() as opened:
        yield opened
        opened.cancel_scope.cancel()


def in_world(
    name: str, function: Any, arguments: Mapping[str, Any], instance: Any
) -> AsyncFixture | None:
    """What stands for an async fixture, or for one that takes one; None for all others."""
    nursery_name = "nursery"
    if name == nursery_name and function.__module__.startswith("pytest_trio"):
        return AsyncFixture(nursery, {})
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or hasattr(function, "_force_trio_fixture")  # pytest_trio.trio_fixture
        or any(isinstance(value, AsyncFixture) for value in arguments.values())
    ):
        if inspect.ismethod(function) and type(function.__self__) is type(instance):
            function = function.__func__.__get__(instance)  # of the object that has the test
        return AsyncFixture(function, arguments)
    return None


def explored_async(
    test: Callable[..., Any],
    options: Mapping[str, Any],
    run: Callable[[Callable[..., Any], Mapping[str, Any]], None],
    anyio_backend: Callable[[], Any],
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
        run(main, {"backend": backend_of(test, anyio_backend()), **options})

    known = inspect.signature(test)
    plain = known.replace(return_annotation=None)
    explored_test.__signature__ = plain  # type: ignore[attr-defined]
    explored_test.vkemu_options = dict(options)  # type: ignore[attr-defined]
    explored_test.vkemu_async = True  # type: ignore[attr-defined]
    # For pytest-trio, where the test is marked: it is run as it is.
    explored_test._trio_test_runner_wrapped = True  # type: ignore[attr-defined]
    return explored_test


def backend_of(test: Any, asked: Any) -> str:
    """What the test is written for: as AnyIO's fixture, a mark or its module's imports say."""
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
