"""The live executor seen from outside: real time, several executions, joining a thread."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.live import Live
from vkprotocol.effects import CLOCK, Mailbox, pause

backends = pytest.mark.parametrize("backend", BACKENDS)


async def test_scaled_time_follows_the_event_loop(autojump_clock: Any) -> None:
    """Under trio's virtual clock, so nothing really waits: 4 virtual seconds to one of the loop."""
    execution = Live(time_scale=4.0)
    times: list[int] = []

    async def sleeper(seconds: int) -> None:
        await pause(seconds * 1_000_000_000)
        times.append(CLOCK[0])

    for seconds in (8, 2, 5):
        execution.spawn(f"sleep{seconds}", sleeper(seconds))
    began = anyio.current_time()
    await execution.run()

    assert [round(t / 1e9, 3) for t in times] == [2, 5, 8]
    assert anyio.current_time() - began == pytest.approx(2)


async def test_an_early_deadline_set_late_is_kept(autojump_clock: Any) -> None:
    execution = Live(time_scale=1.0)
    times: list[float] = []

    async def sleeper(seconds: int, then: int) -> None:
        await pause(seconds * 1_000_000_000)
        if then:
            execution.spawn("short", sleeper(then, 0))
        times.append(round(CLOCK[0] / 1e9, 3))

    execution.spawn("long", sleeper(100, 0))
    execution.spawn("first", sleeper(1, 2))
    await execution.run()

    assert times == [1, 3, 100]


@backends
def test_two_executions_in_one_process_keep_their_own_clocks(backend: str) -> None:
    def program(execution: Live, step: int, times: list[int]) -> None:
        async def ticks() -> None:
            for _ in range(5):
                await pause(step)
                times.append(CLOCK[0])

        execution.spawn("ticks", ticks())

    async def main() -> tuple[list[int], list[int]]:
        slow: list[int] = []
        fast: list[int] = []
        one, other = Live(), Live()
        program(one, 1000, slow)
        program(other, 10, fast)
        async with anyio.create_task_group() as group:
            group.start_soon(one.run)
            group.start_soon(other.run)
        return slow, fast

    slow, fast = on_backend(backend, main)

    assert slow == [1000, 2000, 3000, 4000, 5000]
    assert fast == [10, 20, 30, 40, 50]


@backends
def test_a_thread_can_be_joined_from_outside(backend: str) -> None:
    ended: list[str] = []

    async def main() -> None:
        execution = Live(time_scale=1.0)
        mailbox, never = Mailbox("mail"), Mailbox("never")

        async def reader(mailbox: Mailbox) -> None:
            ended.append(await mailbox.recv())

        async def fails() -> None:
            await pause(1000)
            raise ValueError("no")

        async def run() -> None:
            with pytest.raises(ValueError, match="no"):
                await execution.run()

        with execution.source():
            execution.spawn("init", reader(never))
            thread = execution.spawn("reader", reader(mailbox))
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                execution.post(mailbox, "first")
                await execution.join(thread)
                assert ended == ["first"]
                await execution.join(thread)
                bad = execution.spawn("bad", fails())
                other = execution.spawn("other", reader(never))
                with pytest.raises(ValueError, match="no"):
                    await execution.join(bad)
                with pytest.raises(ValueError, match="no"):
                    await execution.join(other)

    on_backend(backend, main)
