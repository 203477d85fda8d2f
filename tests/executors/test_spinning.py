"""Time passes for a sleeper while somebody else spins."""

from __future__ import annotations

from random import Random

import pytest
from vkemu.executors.any_timer import AnyTimer
from vkemu.executors.backend import on_backend
from vkemu.executors.controlled import LATE, Execution, StepBound
from vkemu.executors.live import Live
from vkprotocol.effects import CLOCK, Cell, pause

from tests.executors.programs import following

SECOND = 1_000_000_000


def spin(execution: Execution, seconds: int) -> None:
    done = Cell("done", False)

    async def sleeper() -> None:
        for _ in range(seconds):
            await pause(SECOND)
        await done.store(True)

    async def spinner() -> None:
        while not await done.load():
            pass

    execution.spawn("sleeper", sleeper())
    execution.spawn("spinner", spinner())


@pytest.mark.parametrize("kind", [Execution, AnyTimer])
def test_who_waits_in_a_loop_for_a_sleeper_comes_to_an_end(kind: type[Execution]) -> None:
    execution = kind()
    spin(execution, 3)
    execution.run(Random(1).choice, 100_000)

    assert CLOCK[0] == 3 * SECOND


def test_a_live_run_in_which_somebody_spins_replays() -> None:
    live = Live(record=True, seed=1)
    spin(live, 1)
    on_backend("asyncio", live.run)
    assert live.schedule is not None
    assert len(live.schedule) > LATE

    again = Execution()
    spin(again, 1)
    again.run(following(live.schedule), len(live.schedule))

    assert CLOCK[0] == live.clock == SECOND


def test_who_waits_for_nobody_does_not() -> None:
    execution = Execution()
    never = Cell("never", False)

    async def spinner() -> None:
        while not await never.load():
            pass

    execution.spawn("spinner", spinner())

    with pytest.raises(StepBound):
        execution.run(lambda runnable: runnable[0], 100_000)
