"""The number of traces where threads are cancelled, or wait for what no effect changes: a step that
never came counts as itself, where it could have come, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from vkemu import explore

from tests.exploration.agreement import REDUCTIONS


def select(k: Any) -> None:
    """Cancelled before the branch is taken, after it, in the step after that, or too late."""
    queue, x = k.queue("q"), k.cell("x")

    async def wait() -> None:
        try:
            await k.select(queue.get())
        finally:
            await x.store(1)

    thread = k.spawn("w", wait)

    async def cancel() -> None:
        await queue.put(1)
        await k.cancel(thread)

    k.spawn("a", cancel)


def waits_for_who_cancels_it(k: Any) -> None:
    lock = k.lock("l")
    threads: list[Any] = []

    async def cancel() -> None:
        async with lock:
            await k.cancel(threads[0])

    k.spawn("a", cancel)
    threads.append(k.spawn("w", lock.acquire))


async def readers(k: Any) -> None:
    """Two that read, are cancelled, and read again."""
    x = k.cell("x")

    async def read() -> None:
        try:
            await x.load()
        except BaseException:
            pass
        await x.load()

    for thread in [k.spawn(name, read) for name in "ab"]:
        await k.cancel(thread)


async def nursery(k: Any) -> None:
    """Out of time, as its children come to their end."""

    async def nap() -> None:
        await k.sleep(1)

    try:
        async with k.timeout(1), k.nursery() as children:
            for name in "ab":
                await children.start(name, nap)
    except TimeoutError:
        pass


async def twice(k: Any) -> None:
    """In the first execution of a search too, which does not know yet who is cancelled."""
    x = k.cell("x")
    thread = k.spawn("a", x.load)
    await k.cancel(thread)
    await k.cancel(thread)


def guard_over_a_list(k: Any) -> None:
    x, least = k.cell("x"), [1]
    k.spawn("w", x.wait, lambda value: value >= least[0])
    k.spawn("s", x.store, 1)

    async def change() -> None:
        await x.load()
        least[0] = 2

    k.spawn("c", change)


# As many as there are classes of the executions that dfs takes.
COUNTS = [(select, 4), (waits_for_who_cancels_it, 3), (readers, 35), (nursery, 78), (twice, 6)]


@pytest.mark.parametrize(("program", "traces"), COUNTS)
def test_every_trace_is_taken_once(program: Any, traces: int) -> None:
    for strategy in REDUCTIONS:
        found = explore(program, strategy=strategy, stop_on_failure=False)
        assert (found.executions, found.exhausted) == (traces, True)
        assert strategy != "dpor" or not found.blocked


def test_parts_count_as_the_whole() -> None:
    assert explore(nursery, jobs=2).executions == 78


def test_where_every_step_counts_there_are_no_more_than_of_plain_search() -> None:
    for strategy in ("dfs", *REDUCTIONS):
        assert explore(guard_over_a_list, strategy=strategy, stop_on_failure=False).executions == 3
