"""Programs that are more, or await other, than an exploration expects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from vkemu import explore
from vkemu.exploration.strategies import NAMES


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("first", [True, False])
def test_awaiting_what_is_no_effect_is_the_thread_s_error(strategy: str, first: bool) -> None:
    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def sleeper() -> None:
            if not first:
                await x.add(1)
            await asyncio.sleep(0)

        k.spawn("sleeper", sleeper)
        k.spawn("other", x.add, 1)

    found = explore(program, strategy=strategy)

    assert found.verdict == "fail"
    assert found.failure is not None
    expected = "sleeper: TypeError: awaits None, expected an effect of a shared object"
    assert found.failure.message == expected


def test_urw_weighs_a_thread_by_its_own_descendants() -> None:
    """Not by a look at every thread there ever was: 600 of them take no longer than 600 steps."""
    from vkemu.exploration.strategies.urw import Urw

    urw = Urw(1)
    urw.start()
    urw.taken = {(n,): 1 for n in range(600)} | {(0, 0): 2, (0, 0, 1): 4}
    urw.finish(True)
    urw.start()

    assert urw.below == {(0,): [(0, 0), (0, 0, 1)], (0, 0): [(0, 0, 1)]}
    assert urw.weight((0,)) == 1 + 2 + 4
    assert urw.weight((7,)) == 1
    urw.taken = {(0,): 1, (0, 0): 1}
    assert urw.weight((0,)) == 1 + 4
    assert urw.weight((0, 0)) == 1 + 4
