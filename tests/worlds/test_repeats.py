"""asyncio's own futures and queues: what is noted in few hooks is what is noted in many."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from vkemu.exploration.reduction.footprint import dependent
from vkemu.worlds import overriding, repeats
from vkemu.worlds.async_program import AsyncProgram

from tests.worlds import programs
from tests.worlds.generated import drawn, in_asyncio


async def cancelled() -> list[str]:
    """Tasks cancelled before they start, while they wait, and by themselves; futures that fail."""
    said: list[str] = []
    future = asyncio.get_running_loop().create_future()
    queue: asyncio.Queue[int] = asyncio.LifoQueue(1)

    async def waits() -> None:
        try:
            await future
        except ValueError:
            said.append("failed")
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await queue.get()

    tasks = [asyncio.create_task(waits()) for _ in range(2)]
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    tasks[1].cancel()
    future.set_exception(ValueError())
    getter.cancel()
    queue.put_nowait(1)
    ended = await asyncio.gather(*tasks, getter, return_exceptions=True)
    return said + [type(each).__name__ for each in ended]


async def with_a_future_of_its_own() -> bool:
    class Late(asyncio.Future):  # type: ignore[type-arg]
        done: Any = all  # of C, whoever calls it

    return isinstance(Late.done, Callable)  # type: ignore[arg-type]


async def with_an_attribute_of_its_own() -> None:
    asyncio.get_running_loop().create_future().done = bool  # type: ignore[method-assign]


def relations(main: Any) -> list[Any]:
    """Which steps of some executions depend on which, and which come after which."""
    found = []
    with AsyncProgram(main, "asyncio").entered() as build:
        made = build.as_program({})
        draw = Random(1)
        for _ in range(3):
            made.begun += 1
            world: Any = made.begin()
            world.settle()
            steps = []
            while world.runnable:
                tid = draw.choice(world.runnable)
                world.step(tid)
                steps.append((tid, world.taken.must, world.taken.codes))
            world.close()
            pairs = {
                (i, j)
                for j, (who, _, codes) in enumerate(steps)
                for i, (other, _, before) in enumerate(steps[:j])
                if who != other and dependent(before, codes)
            }
            found.append(([(tid, must) for tid, must, _ in steps], pairs))
    return found


MAINS = [programs.queued, cancelled, *[in_asyncio(drawn(n)) for n in range(1)]]


@pytest.mark.slow
@pytest.mark.parametrize("main", MAINS, ids=lambda main: main.__name__)
def test_steps_depend_on_each_other_as_when_every_access_is_noted(
    monkeypatch: pytest.MonkeyPatch, main: Any
) -> None:
    few = relations(main)
    monkeypatch.setattr(repeats, "KNOWN", {})
    assert few == relations(main)


def known(main: Any) -> int:
    with AsyncProgram(main, "asyncio").entered() as build:
        made = build.as_program({})
        for _ in range(2):
            made.begun += 1
            world: Any = made.begin()
            world.settle()
            while world.runnable:
                world.step(world.runnable[0])
            world.close()
        assert build.instruments is not None
        return len(build.instruments.known)


@pytest.mark.skipif(sys.version_info[:3] != (3, 11, 7), reason="what is known is of one release")
def test_what_is_known_is_there() -> None:
    assert known(programs.queued) == len(repeats.KNOWN)


@pytest.mark.parametrize("main", [with_a_future_of_its_own, with_an_attribute_of_its_own])
def test_a_future_with_other_methods_ends_it(main: Any) -> None:
    assert known(main) == 0
    assert not overriding.DOUBTS


def test_other_code_of_the_same_name_is_not_known() -> None:
    def done(self: Any) -> bool:
        return bool(self._state)

    found: Any = [(done, "asyncio.futures")]
    assert repeats.known_of(found, lambda function: function.__code__) == {}
