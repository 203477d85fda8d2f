"""`mixed`: random programs in four guests, and the host process beside them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.assemble import Machine, assemble, execution_for
from vkemu.launch.draw import drawn
from vkemu.launch.outcome import Outcome, Recorder, WrongMemory, conduct
from vkemu.launch.scenario import Scenario, load
from vkprotocol.effects import CURTHREAD
from vkprotocol.guarded import checking

pytestmark = pytest.mark.slow

# Of each policy that should pass many hundred seeds are run by hand; here, of different kinds, one.
POLICIES = ("bloom", "notifier")


class Counted:
    """A log that counts: events by name, pages written out by the kind of their object."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.type_of: dict[Any, str] = {}

    def emit(self, name: str, *fields: Any) -> None:
        self.counts[name] += 1
        if name == "object.create":
            self.type_of[fields[0]] = fields[1]
        elif name == "pager.put":
            self.counts[f"put {self.type_of[fields[0]]}"] += 1


def run(seed: int, *settings: str) -> tuple[Outcome, Machine, Counter[str]]:
    scenario = drawn(load("mixed", settings), seed)
    log = Counted()
    machine = assemble(scenario, log)
    outcome = conduct(machine.execution, Recorder(seeded(seed)), scenario.max_steps, machine.finish)
    return outcome, machine, log.counts


@pytest.mark.parametrize("policy", POLICIES)
def test_a_correct_guest_is_safe(policy: str) -> None:
    outcome, _, _ = run(3, f"policy={policy}")

    assert outcome.verdict == "pass", str(outcome.error)


def test_there_is_pressure_on_both_sides() -> None:
    total: Counter[str] = Counter()
    swapped = 0
    for seed in (1, 2):
        outcome, machine, counts = run(seed)
        assert outcome.verdict == "pass"
        total += counts
        swapped += sum(guest.swap.taken for guest in machine.guests)

    assert total["pageout.launder"] > 20, "nothing was laundered"
    assert total["put OBJT_VNODE"] > 20, "no page of a guest's image was written"
    assert total["put OBJT_DEFAULT"] + total["put OBJT_SWAP"] > 10, "the host swapped nothing"
    assert total["page.free"] > 100, "nothing was reclaimed"
    assert swapped, "no guest swapped"
    assert total["oom.kill"], "swap was never full"
    assert total["fault.inject"] > 5, "no page was refused by swap"
    assert total["user.file"] > 10, "no object was mapped at two addresses"


@pytest.mark.parametrize("policy", ["extent_scan", "vptmapped"])
def test_a_reverse_map_that_cannot_see_vptes_fails(policy: str) -> None:
    found = (run(seed, f"policy={policy}", "max_steps=200000")[0] for seed in range(1, 40))

    assert any(outcome.verdict == "fail" for outcome in found)


def test_every_field_of_both_kernels_is_touched_under_its_lock() -> None:
    seed = 5
    scenario = drawn(load("mixed", ()), seed)
    execution = execution_for(scenario)
    execution.checking = True

    def finish() -> None:
        CURTHREAD[0] = None  # who looks afterwards is no thread of theirs
        machine.finish()

    with checking():
        machine = assemble(scenario, None, execution)
        outcome = conduct(execution, Recorder(seeded(seed)), scenario.max_steps, finish)

    assert outcome.verdict == "pass", str(outcome.error)


def workloads(scenario: Scenario) -> list[str]:
    return [spec for guest in scenario.guest for spec in guest.workloads]


def test_each_seed_draws_other_programs_and_each_guest_its_own() -> None:
    scenario = load("mixed", ())
    one, same, other = (drawn(scenario, seed) for seed in (1, 1, 2))

    assert workloads(one) == workloads(same)
    assert not set(workloads(one)) & set(workloads(other))
    assert len(set(workloads(one))) == len(workloads(one))
    assert drawn(one, 2) == one, "what is drawn stays"


def test_a_word_the_host_process_did_not_write_is_a_failure() -> None:
    scenario = drawn(load("mixed", ()), 1)
    machine = assemble(scenario)
    machine.natives[0].wrong.append((0x1000, 1, 2))

    with pytest.raises(WrongMemory, match="native: reads 0x2 at 0x1000, wrote 0x1"):
        machine.finish()
    machine.execution.close()
