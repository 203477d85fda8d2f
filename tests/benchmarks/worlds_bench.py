"""Async programs: what following costs, and how soon a bug is found, beside others.

    python tests/benchmarks/worlds_bench.py

detangle and frontrun take part when they can be imported (they are no dependency of ours).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from vkemu import explore
from vkemu.worlds.async_program import AsyncProgram
from vkemu.worlds.noting import HERE

from tests.worlds import programs

EXECUTIONS = 150


class Counter:
    def __init__(self) -> None:
        self.value = 0

    async def increment(self) -> None:
        value = self.value
        await asyncio.sleep(0)
        self.value = value + 1


async def counter_of_three() -> None:
    counter = Counter()
    await asyncio.gather(*[counter.increment() for _ in range(3)])
    assert counter.value == 3, "an update is lost"


async def locked_counter() -> None:
    counter, lock = Counter(), asyncio.Lock()

    async def increment() -> None:
        async with lock:
            await counter.increment()

    await asyncio.gather(*[increment() for _ in range(3)])
    assert counter.value == 3, "an update is lost"


def cost(program: Any, backend: str, *, follow: bool, rewrite: bool) -> float:
    """Milliseconds of CPU of an execution."""
    best = 1e9
    with AsyncProgram(program, backend).entered() as build:
        made = build.as_program({})
        assert build.instruments is not None
        if not rewrite:
            build.instruments.remove()
        for _ in range(3):
            draw = Random(1)
            began = time.process_time()
            for _ in range(EXECUTIONS):
                made.begun += 1  # as a search counts: it collects what is left now and then
                world: Any = made.begin()
                world.tracking = HERE.on = follow
                world.settle()
                while world.runnable:
                    world.step(draw.choice(world.runnable))
                world.close()
            best = min(best, (time.process_time() - began) / EXECUTIONS)
    return best * 1e3


def ours(program: Any, strategy: str, limit: int) -> str:
    began = time.process_time()
    found = explore(program, backend="asyncio", strategy=strategy, max_executions=limit)
    seconds = time.process_time() - began
    what = "fails" if found.failure else "all held" if found.exhausted else "held so far"
    return f"{what} after {found.executions}, {seconds:.2f} s"


def of_detangle(program: Any, limit: int) -> str:
    import detangle  # type: ignore[import-not-found, unused-ignore]

    began = time.process_time()
    try:
        stats = detangle.explore(program, runs=limit)
    except AssertionError as error:
        return f"fails ({type(error).__name__}), {time.process_time() - began:.2f} s"
    return f"held in {getattr(stats, 'runs', limit)}, {time.process_time() - began:.2f} s"


def of_frontrun(limit: int) -> str:
    import frontrun  # type: ignore[import-not-found, unused-ignore]

    began = time.process_time()
    found = frontrun.explore(
        setup=Counter, workers=Counter.increment, count=3, invariant=lambda c: c.value == 3
    )
    if asyncio.iscoroutine(found):
        found = asyncio.run(found)
    seconds = time.process_time() - began
    held = getattr(found, "property_holds", None)
    return f"holds: {held}, after {getattr(found, 'num_explored', '?')}, {seconds:.2f} s"


def said(row: Callable[[], str]) -> str:
    try:
        return row()
    except ImportError as error:
        return f"not here ({error.name})"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"


def main() -> None:
    print("CPU ms an execution: driven, and followed")
    for program, backend in (
        (programs.lost_update, "trio"),
        (programs.leaking_pool, "trio"),
        (programs.queued, "asyncio"),
    ):
        driven = cost(program, backend, follow=False, rewrite=False)
        followed = cost(program, backend, follow=True, rewrite=True)
        name = f"{program.__name__} ({backend})"
        print(f"  {name:28} {driven:6.2f} {followed:6.2f}  x{followed / driven:.2f}")
    print("the same bug: three tasks lose an update")
    for strategy in ("dpor", "random", "pos"):
        print(f"  vkemu {strategy:8} {ours(counter_of_three, strategy, 1000)}")
    print(f"  detangle       {said(lambda: of_detangle(counter_of_three, 1000))}")
    print(f"  frontrun       {said(lambda: of_frontrun(1000))}")
    print("the same with a lock: until nothing is left")
    print(f"  vkemu dpor     {ours(locked_counter, 'dpor', 100_000)}")
    print(f"  detangle       {said(lambda: of_detangle(locked_counter, 1000))}")


if __name__ == "__main__":
    main()
