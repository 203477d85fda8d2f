"""The books of a run that goes on: they are looked at, and find what is put right before the end."""

from __future__ import annotations

from typing import Any

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.assemble import Machine, assemble
from vkemu.launch.outcome import Outcome, Recorder, conduct
from vkemu.launch.scenario import load

from vkhost.vm.vm_page import PG_MAPPED


def wild(policy: str) -> Machine:
    return assemble(load("wild", (f"policy={policy}", "seed=1")))


def outcome(machine: Machine) -> Outcome:
    return conduct(machine.execution, Recorder(seeded(1)), 300_000, machine.finish)


@pytest.mark.parametrize("policy", ["vpte_list", "nested"])
def test_a_run_has_moments_in_which_nobody_is_in_the_kernel(policy: str) -> None:
    machine = wild(policy)

    assert outcome(machine).verdict == "pass"
    assert machine.quiet is not None
    assert machine.quiet.looks >= 3


def test_an_account_that_is_wrong_for_a_while_is_found() -> None:
    """One entry too few in a pv list: by the end its process is gone, and nothing is left."""
    machine = wild("pv_entry")
    kernel = machine.kernel
    taken: list[Any] = []

    def falsify(*_: object) -> None:
        mapped = [m for m in kernel.pages.values() if m.flags.state & PG_MAPPED and m.pv_list]
        if not taken and mapped and mapped[0].pv_list.ptes:
            taken.append(mapped[0].pv_list.ptes.popitem())

    machine.oracle.tell("run.enter", falsify)
    error = outcome(machine).error

    assert "rmap_bytes" in str(error)


def test_without_books_nobody_looks() -> None:
    assert assemble(load("quickstart", ("checks=['dirty']",))).quiet is None
