"""`timers = "any"`: a timeout may come while others still run; otherwise it may not."""

from __future__ import annotations

import pytest
from vkemu.executors.any_timer import AnyTimer
from vkemu.executors.chance import seeded
from vkemu.executors.controlled import Execution
from vkemu.launch.outcome import Outcome, Recorder, Stalled, conduct
from vkprotocol.effects import CLOCK, Cell, WaitChannel, pause


def race(execution: Execution, seed: int) -> tuple[Outcome, list[str]]:
    """A sleeper with a timeout of 1 ms against a waker that takes ten steps to come."""
    channel = WaitChannel("channel")
    asleep = Cell("asleep")
    word = Cell("word")
    heard: list[str] = []

    async def sleeper() -> None:
        await channel.enqueue()
        await asleep.store(1)
        heard.append("woken" if await channel.sleep(1_000_000) else "timeout")

    async def waker() -> None:
        await asleep.wait(bool)
        for _ in range(10):
            await word.add(1)
        await channel.wakeup()

    async def ticker() -> None:
        while True:
            await pause(5_000_000)

    execution.spawn("sleeper", sleeper())
    execution.spawn("waker", waker())
    execution.spawn("ticker", ticker(), daemon=True)
    return conduct(execution, Recorder(seeded(seed)), 10_000), heard


def test_the_clock_stands_while_anybody_can_run() -> None:
    for seed in range(20):
        outcome, heard = race(Execution(), seed)

        assert (outcome.verdict, heard) == ("pass", ["woken"])
        assert CLOCK[0] == 0


def test_any_timer_makes_both_ends_possible() -> None:
    found = {race(AnyTimer(), seed)[1][0] for seed in range(60)}

    assert found == {"woken", "timeout"}


def test_the_run_ends_though_a_daemon_still_waits_for_time() -> None:
    assert race(AnyTimer(), 1)[0].verdict == "pass"


def test_a_schedule_with_timers_is_its_seed() -> None:
    assert race(AnyTimer(), 5)[0].choices == race(AnyTimer(), 5)[0].choices


@pytest.mark.slow
def test_a_run_in_which_only_daemons_go_is_given_up() -> None:
    execution = Execution()
    never = Cell("never")

    async def stuck() -> None:
        await never.wait(bool)

    async def ticker() -> None:
        while True:
            await pause(1_000)

    execution.spawn("stuck", stuck())
    execution.spawn("ticker", ticker(), daemon=True)
    outcome = conduct(execution, Recorder(seeded(1)), 10_000_000)

    assert outcome.verdict == "unknown"
    assert isinstance(outcome.error, Stalled)
    assert "stuck waits to wait never" in str(outcome.error)
