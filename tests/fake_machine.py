"""A machine of two threads and one word: small enough to know every schedule of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vkemu.executors.controlled import Execution
from vkemu.launch.assemble import Log
from vkemu.launch.outcome import WrongMemory
from vkemu.launch.scenario import Scenario
from vkprotocol.effects import CLOCK, Cell


class LostUpdate(WrongMemory):
    """What the fake's oracle says."""


class FakeMachine:
    """Guests add 1 to a word; under the policy `vptmapped` by a load and a store."""

    def __init__(self, scenario: Scenario, log: Log | None, execution: Execution) -> None:
        self.execution = execution
        self.log = log
        self.racy = scenario.policy == "vptmapped"
        self.wanted = len(scenario.guest)
        self.guests: list[Any] = []  # no vkernels, and no host processes
        self.kernel = SimpleNamespace(procs=())
        self.word = Cell("word", 0)
        for number, guest in enumerate(scenario.guest):
            execution.spawn(f"{guest.name}.vcpu0", self.increment(number))

    async def increment(self, number: int) -> None:
        if self.racy:
            value = await self.word.load()
            self.emit("mem.load", number, number, 0, 0, 0, value)
            await self.word.store(value + 1)
        else:
            value = await self.word.add(1)
        self.emit("mem.store", number, number, 0, 0, 0, value + 1)

    def emit(self, name: str, *fields: Any) -> None:
        if self.log is not None:
            self.log.emit(name, *fields)

    def finish(self) -> None:
        if self.word.value != self.wanted:
            raise LostUpdate(f"word is {self.word.value}, not {self.wanted}\nan update is lost")

    @property
    def virtual_ns(self) -> int:
        return CLOCK[0]

    def counters(self) -> dict[str, int]:
        return {}


def execution_for(scenario: Scenario) -> Execution:
    return Execution()


def assemble(
    scenario: Scenario,
    log: Log | None = None,
    execution: Execution | None = None,
    *,
    quiet: bool = True,
) -> FakeMachine:
    return FakeMachine(scenario, log, Execution() if execution is None else execution)
