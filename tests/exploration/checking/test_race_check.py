"""The checking mode: what orders accesses, what is told of a race, where it is enforced."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from vkemu import explore, replay
from vkemu.litmus import decide
from vkemu.litmus.file import find_litmus, load_litmus
from vkprotocol.effects import CURTHREAD
from vkprotocol.guarded import checking, guarded_by

from tests.exploration.checking.touches import Box, race_of
from tests.exploration.generated import Built, Source, sources


def test_a_shared_lock_does_not_let_two_write() -> None:
    def program(k: Any, exclusive: bool) -> None:
        items: list[int] = []
        lock = k.rwlock("lock")

        async def write() -> None:
            if exclusive:
                await lock.acquire_exclusive()
            else:
                await lock.acquire_shared()
            items.append(1)
            await lock.release()

        async def read() -> None:
            await lock.acquire_shared()
            assert len(items) < 3
            await lock.release()

        k.spawn("a", write)
        k.spawn("b", write)
        k.spawn("c", read)

    assert race_of(lambda k: program(k, True)) is None
    race = race_of(lambda k: program(k, False))
    assert race is not None
    assert race.variable == "items"


def test_spawning_and_time_order() -> None:
    """What a child does before its first step, it does in the step of its parent."""

    def spawns(k: Any) -> None:
        items: list[int] = []
        x = k.cell("x")

        async def child() -> None:
            items.append(2)
            await x.load()

        async def parent() -> None:
            await x.load()
            items.append(1)
            k.spawn("child", child)

        k.spawn("parent", parent)

    def sleeps(k: Any) -> None:
        items: list[int] = []

        async def late(seconds: int) -> None:
            await k.sleep(seconds)
            items.append(seconds)

        k.spawn("a", late, 1)
        k.spawn("b", late, 2)

    assert race_of(spawns) is None
    assert race_of(sleeps) is None


def test_readers_and_items_of_their_own_do_not_race() -> None:
    def program(k: Any) -> None:
        known = {"a": 1, "b": 2}
        found = [0, 0]
        box = {name: Box() for name in "ab"}
        x = k.cell("x")

        async def body(name: str, n: int) -> None:
            await x.load()
            found[n] = known[name] + len(known)
            box[name].count += 1
            mine = [n]
            mine.append(found[n])

        k.spawn("a", body, "a", 0)
        k.spawn("b", body, "b", 1)

    assert race_of(program) is None


def test_an_item_races_with_the_whole() -> None:
    def program(k: Any) -> None:
        found = {"a": 0, "b": 0}
        x = k.cell("x")

        async def write() -> None:
            await x.load()
            found["a"] = 1

        async def total() -> None:
            await x.load()
            assert sum(found.values()) < 3

        k.spawn("a", write)
        k.spawn("b", total)

    race = race_of(program)
    assert race is not None
    assert race.first.write != race.second.write


def test_threads_of_one_function_have_variables_of_their_own() -> None:
    def program(k: Any) -> None:
        x = k.cell("x")

        def worker() -> Any:
            n = 0

            async def body() -> None:
                nonlocal n
                await x.load()
                n += 1

            return body

        k.spawn("a", worker())
        k.spawn("b", worker())

    assert race_of(program) is None


def test_the_spawner_s_own_variable() -> None:
    def program(k: Any, joined: bool) -> None:
        async def root() -> None:
            k.joinable = True
            n = 0
            x = k.cell("x")

            async def body() -> None:
                nonlocal n
                await x.load()
                n += 1

            thread = k.spawn("child", body)
            await (k.join(thread) if joined else x.load())
            assert n < 5

        k.spawn("root", root)

    assert race_of(lambda k: program(k, True)) is None
    race = race_of(lambda k: program(k, False))
    assert race is not None
    assert race.variable == "n"


def test_before_the_first_effect_is_not_ordered_either() -> None:
    def program(k: Any) -> None:
        n = 0

        async def body() -> None:
            nonlocal n
            n += 1

        k.spawn("a", body)
        k.spawn("b", body)

    assert race_of(program) is not None


def test_the_race_is_told_with_both_places_and_replays() -> None:
    def program(k: Any) -> None:
        total = 0
        x = k.cell("x")

        async def add() -> None:
            nonlocal total
            await x.load()
            total += 1

        k.spawn("a", add)
        k.spawn("b", add)
        k.at_end(lambda: total == 2)

    found = explore(program, check=True)
    failure = found.failure
    assert failure is not None
    assert failure.message.startswith("b: DataRace: data race on total: a writes it at ")
    assert failure.message.count("test_race_check.py:") == 2
    assert failure.message.endswith("and nothing orders the two")
    assert replay(program, failure.token, check=True).message == failure.message
    assert explore(program).verdict == "pass"


def test_going_on_after_a_race_counts_the_executions() -> None:
    def program(k: Any) -> None:
        total = 0
        x = k.cell("x")

        async def add() -> None:
            nonlocal total
            await x.add(1)  # what comes after it in a thread is not before the other's
            total += 1

        k.spawn("a", add)
        k.spawn("b", add)

    found = explore(program, check=True, stop_on_failure=False)
    assert (found.verdict, found.executions, found.exhausted) == ("fail", 2, True)


@pytest.mark.slow
@settings(max_examples=60, derandomize=True)
@given(sources())
def test_programs_that_share_by_effects_have_no_race(source: Source) -> None:
    def program(k: Any) -> None:
        Built(k, source)

    plain = explore(program, max_executions=50, stop_on_failure=False)
    checked = explore(program, max_executions=50, stop_on_failure=False, check=True)
    counts = [(r.verdict, r.executions, r.blocked, r.failures) for r in (plain, checked)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("strategy", ["bounded", "pct", "pos", "urw", "portfolio", "source-dpor"])
def test_every_strategy_checks(strategy: str) -> None:
    def program(k: Any, guarded: bool) -> None:
        n = 0
        lock = k.lock("lock")

        async def body() -> None:
            nonlocal n
            await lock.acquire()
            if guarded:
                n += 1
            await lock.release()
            if not guarded:
                n += 1

        k.spawn("a", body)
        k.spawn("b", body)

    options: Any = {"strategy": strategy, "max_executions": 50}
    assert race_of(lambda k: program(k, False), **options) is not None
    assert explore(lambda k: program(k, True), check=True, **options).failure is None


@pytest.mark.slow
def test_jobs_check_too() -> None:
    found = explore(RACY, check=True, jobs=2)
    alone = explore(RACY, check=True)
    assert found.failure is not None
    assert alone.failure is not None
    assert found.failure.message == alone.failure.message
    found = explore(UNGUARDED, check=True, jobs=2)
    assert found.failure is not None
    assert "Unguarded" in found.failure.message


def test_tables_keyed_by_thread_are_no_race() -> None:
    def program(k: Any) -> None:
        seen: dict[tuple[int, ...], list[int]] = {}
        x = k.cell("x")

        async def body() -> None:
            me = CURTHREAD[0]
            assert me is not None
            log = seen[me.path] = []
            log.append(await x.add(1))
            log.append(await x.add(1))

        k.spawn("a", body)
        k.spawn("b", body)

    assert race_of(program) is None


@guarded_by("lock", "plain")
class Guarded:
    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.plain = 0


@pytest.mark.parametrize("already", [False, True])
def test_a_guarded_field_wants_its_lock(already: bool) -> None:
    def program(k: Any) -> None:
        field = Guarded(k.lock("lock"))

        async def body() -> None:
            await k.cell("x").load()
            field.plain += 1

        k.spawn("a", body)

    if already:
        with checking():
            found = explore(program, check=True)
    else:
        found = explore(program, check=True)
    assert found.failure is not None
    assert "a: Unguarded: a reads Guarded.plain without lock" in found.failure.message
    assert explore(program).verdict == "pass"


def racy(k: Any, guarded: bool) -> None:
    field = Guarded(k.lock("lock"))
    items: list[int] = []
    x = k.cell("x")

    async def body() -> None:
        await x.add(1)
        if guarded:
            field.plain += 1
        else:
            items.append(1)

    k.spawn("a", body)
    k.spawn("b", body)


RACY = partial(racy, guarded=False)
UNGUARDED = partial(racy, guarded=True)


@pytest.mark.slow
@pytest.mark.parametrize("window", ["W01", "W07", "W24", "W29", "W33"])
def test_the_kernels_keep_to_what_they_say_of_their_locks(window: str) -> None:
    litmus = load_litmus(str(find_litmus(window)), "")
    found = explore(
        decide.Test(litmus, "pv_entry"), check=True, max_steps=litmus.file.litmus.max_steps
    )
    assert found.failure is None, found.failure.message
