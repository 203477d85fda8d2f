"""A machine of two threads and one word: small enough to know every schedule of it."""

from __future__ import annotations

from vkemu.assemble import Machine
from vkemu.controlled import Execution
from vkemu.log import EventLog
from vkemu.scenario import Scenario
from vkprotocol.effects import Cell


class LostUpdate(AssertionError):
    """What the fake's oracle says."""


def assemble(scenario: Scenario, log: EventLog | None = None) -> Machine:
    """Guests add 1 to a word; under the policy `vptmapped` by a load and a store."""
    execution = Execution()
    word = Cell("word", 0)
    done = Cell("done", 0)
    guests = len(scenario.guest)

    async def guest(number: int) -> None:
        if scenario.policy == "vptmapped":
            value = await word.load()
            if log is not None:
                log.emit("mem.load", number, number, 0, 0, 0, value)
            await word.store(value + 1)
        else:
            value = await word.add(1)
        if log is not None:
            log.emit("mem.store", number, number, 0, 0, 0, value + 1)
        if await done.add(1) == guests - 1 and word.value != guests:
            raise LostUpdate(f"word is {word.value}, not {guests}\nan update is lost")

    for number, table in enumerate(scenario.guest):
        execution.spawn(f"vcpu0@{table.name}", guest(number))
    return Machine(execution)
