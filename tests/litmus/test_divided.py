"""A litmus test explored in parts: the same states, as often."""

from __future__ import annotations

from random import Random

import pytest
from vkemu import explore
from vkemu.exploration.reduction.frontier import Frontier
from vkemu.exploration.result import Result
from vkemu.exploration.sharing.division import Division
from vkemu.exploration.sharing.jobs import Hand, Job, Task
from vkemu.exploration.sharing.parallel import Coordinator
from vkemu.litmus import decide
from vkemu.litmus.file import load_litmus

from tests.exploration.sharing.test_jobs import Torn


def torn(test: decide.Test, seed: int) -> Result:
    """The whole search in small parts, in any order."""
    task = Task("dpor", 0, test.litmus.file.litmus.max_steps, False, "unknown", False)
    result = Result("dpor", 0)
    coordinator = Coordinator(
        Torn(test, task, Random(seed)),
        3,
        result,
        stop_on_failure=False,
        max_executions=None,
        max_seconds=None,
        progress=None,
    )
    coordinator.exhaustive(Division())
    result.exhausted = True
    for ending, times in coordinator.endings.items():
        test.count(ending, times)
    return result


@pytest.mark.parametrize(
    ("window", "policy"),
    [("W03", "pv_entry"), ("W41", "vptmapped"), ("W24", "wired"), ("W22", "bloom"),
     ("W40", "notifier"), ("W09", "vptmapped")],
)  # fmt: skip
def test_parts_count_the_states_of_the_whole(window: str, policy: str) -> None:
    litmus = load_litmus(window)
    whole = decide.Test(litmus, policy)
    one = explore(whole, each=whole.note, stop_on_failure=False)
    parts = decide.Test(litmus, policy)
    many = torn(parts, 1)
    assert parts.outcomes == whole.outcomes
    many.verdict = one.verdict
    assert decide.Decision(parts, many).text == decide.Decision(whole, one).text


def test_a_failure_among_the_first_is_found_by_one_alone() -> None:
    """However many there are: where others have begun as well, who comes first decides."""
    litmus = load_litmus("W29", "wake-one")
    whole = decide.Test(litmus, "pv_entry")
    one = explore(whole, each=whole.note)
    assert (one.verdict, one.executions) == ("fail", 9)
    parts = decide.Test(litmus, "pv_entry")
    task = Task("dpor", 0, 10_000, True, "unknown", False)
    many = explore(parts, workers=Torn(parts, task, Random(1)), jobs=4)
    assert (many.executions, parts.outcomes) == (one.executions, whole.outcomes)


def test_what_a_kernel_holds_is_changed_by_effects_alone() -> None:
    task = Task("dpor", 0, 10_000, False, "unknown", False)
    hand = Hand(decide.Test(load_litmus("W01"), "pv_entry"), task)
    hand.perform(Job(1, Frontier(), 3, 60.0))
    assert not hand.program.numbers.loose
