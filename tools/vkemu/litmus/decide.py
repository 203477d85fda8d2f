"""Decide a litmus test on a policy: explore its interleavings, collect its final states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vkemu.exploration.result import Result
from vkemu.litmus.file import Litmus
from vkemu.litmus.herd import Outcomes, render
from vkemu.litmus.machine import Machine
from vkemu.litmus.verbs import check_statements, run_program
from vkemu.oracle import Oracle


class ForbiddenOutcome(AssertionError):
    """An execution ended in a state the test forbids."""


@dataclass(slots=True)
class Decision:
    """What exploring one test on one policy said."""

    litmus: Litmus
    policy: str
    outcomes: Outcomes
    result: Result

    @property
    def text(self) -> str:
        return render(
            f"{self.litmus.name} [{self.policy}]",
            self.outcomes,
            verdict=self.result.verdict,
            exhausted=self.result.exhausted,
        )


def program_of(
    litmus: Litmus, policy: str, outcomes: Outcomes | None = None
) -> Callable[[Any], None]:
    """The test as a program for `explore`: the kernel, the oracle, and the test's threads."""
    check_statements(litmus)

    def build(k: Any) -> None:
        oracle = Oracle(invariants=litmus.file.litmus.invariants or None)
        machine = Machine(litmus, policy, k.spawn, oracle)
        machine.set_up()
        machine.kernel.start()
        for program in litmus.threads:
            k.spawn(program.name, run_program(machine, program))
        record = Outcomes(litmus.forbidden, litmus.allowed, litmus.required)
        counted = record if outcomes is None else outcomes

        def at_end() -> bool:
            wrong = counted.record({atom: machine.value(atom) for atom in litmus.atoms})
            if wrong is not None:
                raise ForbiddenOutcome(wrong)
            return True

        k.at_end(at_end)

    build.__qualname__ = f"{litmus.name}[{policy}]"
    return build


def decide(litmus: Litmus, policy: str, strategy: str = "dpor", **options: Any) -> Decision:
    """Explore the test; `options` are those of `explore`."""
    from vkemu import explore

    outcomes = litmus.outcomes()
    options.setdefault("max_steps", litmus.file.litmus.max_steps)
    result = explore(program_of(litmus, policy, outcomes), strategy=strategy, **options)
    if result.verdict == "pass" and result.exhausted and outcomes.missing():
        result.verdict = "fail"
    return Decision(litmus, policy, outcomes, result)
