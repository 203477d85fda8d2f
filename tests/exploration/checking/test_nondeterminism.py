"""Programs that do something else when they are run again are found out, whoever runs them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import pytest
from vkemu import explore
from vkemu.exploration import NondeterminismError
from vkemu.exploration.sharing.jobs import Hand, Job, Task
from vkemu.exploration.strategies import NAMES
from vkemu.workers.processes import Here

Program = Callable[[Any], None]


def branches() -> Program:
    """On how often it was built."""
    builds = itertools.count()

    def program(k: Any) -> None:
        x, y = k.cell("x"), k.cell("y")
        odd = next(builds) % 2

        async def wander() -> None:
            await x.load()
            await (y if odd else x).store(1)
            await x.store(2)

        k.spawn("a", wander)
        k.spawn("b", wander)

    return program


def draws() -> Program:
    """A number, when it could have asked the search for a choice."""
    rng = Random(3)

    def program(k: Any) -> None:
        x, y = k.cell("x"), k.cell("y")

        async def wander() -> None:
            for _ in range(4):
                await (x if rng.random() < 0.5 else y).store(1)

        k.spawn("a", wander)

    return program


def sets() -> Program:
    """The locks are taken in the order of a set of strings, whose hashes are not of this world."""
    salt = itertools.count()

    class Name(str):
        __slots__ = ("salted",)

        def __hash__(self) -> int:
            return self.salted  # type: ignore[no-any-return,attr-defined]

    def name(text: str, salt: int) -> Name:
        made = Name(text)
        made.salted = (len(text) * salt) % 7  # type: ignore[attr-defined]
        return made

    def program(k: Any) -> None:
        salted = next(salt) + 3
        names = {name("l" * n, salted) for n in range(1, 6)}
        locks = {str(n): k.lock(str(n)) for n in sorted(names)}

        async def take() -> None:
            for each in names:
                await locks[str(each)].acquire()

        k.spawn("a", take)

    return program


def spawns() -> Program:
    """One thread more, or less."""
    builds = itertools.count()

    def program(k: Any) -> None:
        x = k.cell("x")
        for t in range(2 + next(builds) % 2):
            k.spawn(f"t{t}", x.load)

    return program


def spawns_later() -> Program:
    builds = itertools.count()

    def program(k: Any) -> None:
        x = k.cell("x")
        children = next(builds) % 2

        async def parent() -> None:
            await x.load()
            for _ in range(children):
                k.spawn("child", x.load)

        k.spawn("parent", parent)

    return program


def goes_on() -> Program:
    builds = itertools.count()

    def program(k: Any) -> None:
        x = k.cell("x")
        steps = next(builds) % 2

        async def wander() -> None:
            for _ in range(1 + steps):
                await x.load()

        k.spawn("a", wander)

    return program


def stores() -> Program:
    """What it does is the same, with another value."""
    builds = itertools.count()

    def program(k: Any) -> None:
        x = k.cell("x")
        k.spawn("a", x.store, next(builds))

    return program


def judges() -> Program:
    """Nothing but the verdict."""
    builds = itertools.count()

    def program(k: Any) -> None:
        x = k.cell("x")
        good = next(builds) % 2 == 0
        k.spawn("a", x.load)
        k.at_end(lambda: good)

    return program


def remembers() -> Program:
    """Twenty executions alike, and then others."""
    builds = itertools.count()

    def program(k: Any) -> None:
        x, y = k.cell("x"), k.cell("y")
        late = next(builds) > 20

        async def wander() -> None:
            await x.add(1)
            await x.add(1)
            await (y if late else x).add(1)

        for t in range(3):
            k.spawn(f"t{t}", wander)

    return program


def deadlocks() -> Program:
    """Sometimes nobody releases."""
    builds = itertools.count()

    def program(k: Any) -> None:
        lock = k.lock("l")
        keeps = next(builds) % 2

        async def take() -> None:
            await lock.acquire()
            if not keeps:
                await lock.release()

        k.spawn("a", take)
        k.spawn("b", take)

    return program


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (branches, r"step \d, by [ab], was store [xy].* and is store [xy]"),
        (draws, r"step \d, by a, was store [xy].* and is store [xy]"),
        (sets, r"step \d, by a, was acquire l+ .*and is acquire l+"),
        (spawns, r"step 0, with the threads was t0, t1 and is t0, t1, t2"),
        (spawns_later, r"step 0, by parent, was load x with 1 threads and is load x with 2"),
        (goes_on, r"the end, after 1 steps, was no failure and is no end"),
        (stores, r"step 0, by a, was store x leaving 0 and is store x leaving 1"),
        (judges, r"the end, after 1 steps, was no failure and is does not hold: k.at_end"),
        (remembers, r"step \d, by t[012], was store x.* and is store y"),
        (deadlocks, r"step \d, by [ab], was release l and is nothing"),
    ],
)
def test_it_is_found_out_by_every_strategy(
    kind: Callable[[], Program], named: str, strategy: str
) -> None:
    with pytest.raises(NondeterminismError, match=f"not deterministic: {named}.* under the same"):
        explore(kind(), strategy=strategy, stop_on_failure=False, max_executions=200)


def late(k: Any, builds: Iterator[int]) -> None:
    """A hundred executions alike in every process, and then others."""
    x = k.cell("x")
    value = 2 if next(builds) >= 100 else 1
    for name in "ab":
        k.spawn(name, x.store, value)


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "urw"])
def test_what_is_kept_from_one_part_to_the_next_is_found_out(strategy: str) -> None:
    program = partial(late, builds=itertools.count())
    task = Task(strategy, 0, 100, False, "unknown", False)
    here = Here({b"": Hand(program, task)})
    with pytest.raises(NondeterminismError, match="was store x leaving 1 and is store x leaving 2"):
        explore(program, strategy=strategy, jobs=2, max_executions=600, workers=here)


def test_the_first_execution_is_not_taken_again_after_every_short_part() -> None:
    builds = itertools.count()

    def program(k: Any) -> None:
        next(builds)
        k.spawn("a", k.cell("x").load)

    hand = Hand(program, Task("random", 0, 100, False, "unknown", False))
    for n in range(100):
        assert hand.perform(Job(n, n, 1, 60.0)).executions == 1
    assert 100 < next(builds) < 100 + 20
