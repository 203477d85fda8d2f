"""Litmus tests where CPUs walk for themselves: the reduced search reaches what random runs reach,
and W39 means what facts 8 says."""

from __future__ import annotations

import pytest
from vkemu.executors.controlled import Execution
from vkemu.litmus.decide import decide
from vkemu.litmus.file import load_litmus
from vkemu.litmus.machine import Machine


def reached(window: str, strategy: str, limit: int | None) -> set[str]:
    decision = decide(
        load_litmus(window), "nested", strategy=strategy, stop_on_failure=False,
        max_executions=limit,
    )  # fmt: skip
    if limit is None:
        assert decision.result.exhausted
    return {str(state) for state in decision.outcomes.states}


# The guest edits under a walk; a CPU comes back to the guest; the host takes a page away.
@pytest.mark.slow
@pytest.mark.parametrize("window", ["W15", "W24", "W36"])
def test_the_reduction_leaves_nothing_out(window: str) -> None:
    all_of_them = reached(window, "dpor", None)

    assert len(all_of_them) > 1
    assert reached(window, "random", 60) <= all_of_them


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "verdict"),
    [("", "pass"), ("quick", "fail"), ("pde", "fail"), ("pde-locked", "pass")],
)
def test_a_vcpu_that_flushes_only_itself(variant: str, verdict: str) -> None:
    decision = decide(load_litmus("W39", variant), "nested", max_seconds=30)

    assert decision.verdict == verdict
    if decision.failure is not None:
        assert "no stale translation" in decision.failure.message


def test_without_nested_paging_w39_has_no_question() -> None:
    assert "TLB of its own" in load_litmus("W39").not_applicable("pv_entry")


@pytest.mark.parametrize(("variant", "bypass"), [("", 0), ("bypass", 1)])
def test_the_bypass_of_w09_is_as_its_variant_says(variant: str, bypass: int) -> None:
    ex = Execution()
    machine = Machine(load_litmus("W09", variant), "nested", ex.spawn, lambda *_: None)

    assert machine.kernel.vmmeter.tunables["fault_bypass"] == bypass
    assert machine.kernel.vmmeter.tunables["prefault_pages"] == 0
