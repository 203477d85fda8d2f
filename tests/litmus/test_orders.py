"""A passing execution passes in every order of its independent steps.

dpor takes one order of each; what it says about the others rests on this, for the kernel, whose
footprints say what is independent, and for the oracle, which looks at events one after the other.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from random import Random

import pytest
from vkemu.launch.outcome import recorded
from vkemu.litmus import decide
from vkemu.litmus.file import load_litmus
from vkemu.matrix.cell import not_applicable
from vkemu.matrix.compute import questions
from vkemu.report.explored import Observed
from vkemu.report.recording import Step

RUNS = 2
ORDERS = 2


def another_order(steps: list[Step], random: Random) -> list[int]:
    """The tids of a random linear extension of the steps' happens-before."""
    taken: dict[str, list[int]] = defaultdict(list)  # by actor, the numbers of its steps
    for i, step in enumerate(steps):
        taken[step.actor].append(i)
    missing = []
    following: list[list[int]] = [[] for _ in steps]
    for i, step in enumerate(steps):
        counts = {actor: n - (actor == step.actor) for actor, n in step.clock.items()}
        before = [taken[actor][n - 1] for actor, n in counts.items() if n]
        missing.append(len(before))
        for other in before:
            following[other].append(i)
    ready = [i for i, n in enumerate(missing) if not n]
    order: list[int] = []
    stays = random.random()
    while ready:
        same = [i for i in ready if order and steps[i].tid == order[-1]]
        i = same[0] if same and random.random() < stays else random.choice(ready)
        ready.remove(i)
        order.append(steps[i].tid)
        for other in following[i]:
            missing[other] -= 1
            if not missing[other]:
                ready.append(other)
    return order


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["pv_entry", "vptmapped", "shadow", "nested"])
def test_a_test_passes_in_every_order_of_independent_steps(policy: str) -> None:
    random = Random(1)
    orders = 0
    for question in questions(on=[policy]):
        litmus = load_litmus(question.test)
        if not_applicable(litmus, policy):
            continue
        make = partial(decide.Test, litmus, policy)
        for _ in range(RUNS):
            run = Observed(make, random.choice, record=True)
            if run.run(litmus.file.litmus.max_steps) is not None or run.cut:
                continue
            assert run.recording is not None
            for _ in range(ORDERS):
                order = another_order(run.recording.steps[1:], random)
                again = Observed(make, recorded(order), record=False)
                assert again.run(len(order) + 1) is None, (question, order)
                orders += 1
    assert orders > 100
