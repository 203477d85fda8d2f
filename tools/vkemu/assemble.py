"""From a scenario to a machine that can run: an Execution, a Kernel, guests, an oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vkprotocol.effects import CLOCK

from vkemu.controlled import Execution
from vkemu.log import EventLog
from vkemu.scenario import Scenario
from vkemu.verdict import UsageError


@dataclass(slots=True)
class Machine:
    """A scenario ready to take its first step."""

    execution: Execution

    @property
    def virtual_ns(self) -> int:
        return CLOCK[0]

    def counters(self) -> dict[str, Any]:
        """The host's own counters, as its sysctls give them."""
        return {}

    def owners(self) -> list[str]:
        return []


def assemble(scenario: Scenario, log: EventLog | None = None) -> Machine:
    raise UsageError("vkemu run: not built yet")
