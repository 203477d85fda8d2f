"""`natives`: host programs that protect, lock, sync and fork, and a guest with large pages."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.assemble import assemble
from vkemu.launch.draw import drawn
from vkemu.launch.outcome import Recorder, conduct
from vkemu.launch.scenario import load

pytestmark = pytest.mark.slow


class Calls:
    """A log of what was asked, and how often that was done."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()

    def emit(self, name: str, *fields: Any) -> None:
        if name == "user.return" and not fields[3]:
            self.done[fields[2]] += 1


@pytest.mark.parametrize("policy", ["vpte_list", "notifier"])
def test_all_that_a_host_program_can_ask_is_right(policy: str) -> None:
    calls = Calls()
    for seed in (1, 2):
        scenario = drawn(load("natives", (f"policy={policy}",)), seed)
        machine = assemble(scenario, calls)
        recorder = Recorder(seeded(seed))
        outcome = conduct(machine.execution, recorder, scenario.max_steps, machine.finish)
        assert outcome.verdict == "pass", str(outcome.error)

    asked = {"mmap", "munmap", "mprotect", "madvise", "msync", "mlock", "munlock", "fork"}
    assert asked <= calls.done.keys()
