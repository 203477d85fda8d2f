"""What `k` makes keeps its laws, and reductions see all that it can do: `primitives`."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from vkemu import explore, replay

from tests.exploration.primitives import programs as primitives
from tests.exploration.primitives import scopes, selects
from tests.exploration.test_edges import agreed

# program, verdict, how the one failure of it begins
TABLE: list[tuple[Any, str]] = [
    (primitives.barrier, ""),
    (primitives.barrier_without_enough, "deadlock: a waits to wait b"),
    (primitives.limiter, ""),
    (primitives.limiter_of_a_stranger, "b: LockOrderError: b releases l, which it does not hold"),
    (primitives.limiter_twice, "a: RuntimeError: a acquires l, which it holds already"),
    (partial(primitives.channel, room=1), ""),
    (primitives.hand_to_hand, ""),
    (primitives.clones, ""),
    (primitives.closed, ""),
    (primitives.ended, ""),
    (scopes.time_passes, ""),
    (scopes.timeouts, ""),
    (scopes.too_late_or_not, "w: TimeoutError: 1 s"),
    (scopes.cancelled, ""),
    (scopes.cancelled_with_a_lock, ""),
    (scopes.cancelled_while_it_takes_its_lock_again, ""),
    (scopes.out_of_time_while_it_takes_its_lock_again, "w: TimeoutError: 2 s"),
    (scopes.cancels_itself, ""),
    (scopes.nursery, ""),
    (scopes.nursery_that_fails, ""),
    (scopes.nursery_out_of_time, ""),
    (scopes.nursery_without_its_block, "w: RuntimeError: nursery: start('c') outside its"),
    (scopes.local, ""),
    (
        scopes.local_of_nobody,
        "RuntimeError: local: x belongs to a thread, and none runs here (scopes.py:",
    ),
    (scopes.main, "main: AssertionError: assert x.value == 2"),
    (primitives.one_step, ""),
    (primitives.choices, "a: AssertionError: assert await x.load() != 21"),
    (primitives.notified_without_the_lock, "deadlock: w waits to sleep c"),
    (selects.selects, ""),
    (selects.selects_for_itself, ""),
    (selects.selects_out_of_time, ""),
    (selects.selects_meet, ""),
    (selects.selects_no_more_than_one, "deadlock: "),
    (selects.selects_what_goes_on, "s: TypeError: select: arrive b goes on to wait, expected"),
    (selects.selects_cancelled, ""),
    (selects.several_are_woken, ""),
    (selects.offered, ""),
]


@pytest.mark.parametrize(("program", "said"), TABLE)
def test_it_keeps_its_law(program: Any, said: str) -> None:
    verdict, kinds = agreed(program)
    assert verdict == ("fail" if said else "pass")
    assert len(kinds) == bool(said)
    for kind in kinds:
        assert kind.startswith(said)
        failure = explore(program).failure
        assert failure is not None
        assert replay(program, failure.token).message == failure.message


def test_every_branch_can_be_taken() -> None:
    seen: set[Any] = set()
    assert explore(partial(selects.selects_all_kinds, seen=seen)).exhausted
    assert seen == {(0, None), (1, None), (2, "item"), (3, True), (4, None)}


def test_a_select_says_what_it_waits_for() -> None:
    def program(k: Any) -> None:
        k.spawn("s", lambda: k.select(k.queue("q").get(), k.event("e").wait()))

    (said,) = explore(program).kinds
    assert said == "deadlock: s waits to select select.0.1 (get q or wait e)"


@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ((), "select: expected the operations to wait for, as queue.get()"),
        ((3,), "select: branch 0 is 3, expected an operation, as queue.get()"),
    ],
)
def test_a_select_of_what_is_no_operation_is_refused(branches: Any, said: str) -> None:
    found = explore(lambda k: k.spawn("s", k.select, *branches) and None)
    assert found.kinds == [f"s: TypeError: {said}"]


def test_every_choice_is_made_once() -> None:
    assert explore(primitives.choices, stop_on_failure=False).executions == 6


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda k: k.barrier("b", 0), "barrier 'b': parties: 0, expected a whole number, at least"),
        (lambda k: k.limiter("l", None), "limiter 'l': tokens: None, expected a whole number"),
        (lambda k: k.channel("c", -1), "channel 'c': room: -1, expected a whole number, at least"),
        (lambda k: k.sleep(-1), "sleep: -1, expected seconds, at least 0"),
        (lambda k: k.timeout("1"), "timeout: '1', expected seconds, at least 0"),
        (lambda k: k.cancel("a"), "cancel: 'a', expected a thread"),
        (lambda k: k.semaphore("s", -1), "semaphore 's': -1, expected a whole number, at least 0"),
        (lambda k: k.semaphore("s", "1"), "semaphore 's': '1', expected a whole number, at least"),
        (lambda k: k.queue("q", "3"), "queue 'q': maxsize: '3', expected a whole number, at least"),
        (lambda k: k.queue("q", -1), "queue 'q': maxsize: -1, expected a whole number, at least 0"),
        (lambda k: k.always(bool, reads=[3]), "always: reads 3, expected shared objects"),
        (lambda k: k.join(None), "join: None, expected a thread"),
        (lambda k: k.sleep(float("inf")), "sleep: inf, expected seconds, at least 0, and not for"),
        (lambda k: k.timeout(float("nan")), "timeout: nan, expected seconds, at least 0"),
        (lambda k: k.event("e", "no"), "event 'e': 'no', expected True or False"),
        (lambda k: k.condition("c", k.cell("x")), "condition 'c': lock: <Cell x=0>, expected a lo"),
        (lambda k: k.condition("c", unlocked=1), "condition 'c': unlocked: 1, expected True or"),
        (lambda k: k.always(bool, reads=k.cell("x")), "always: reads: <Cell x=0>, expected a list"),
        (lambda k: k.always(bool, reads=3), "always: reads: 3, expected a list of shared objects"),
        (lambda k: k.cell(""), "cell: '', expected its name"),
        (lambda k: k.lock("l", rank="a"), "lock 'l': rank: 'a', expected a whole number"),
        (lambda k: k.step(reads=k.cell("x")), "step: reads: <Cell x=0>, expected a list of"),
        (lambda k: setattr(k, "joinabel", True), "'Program' object has no attribute 'joinabel'"),
        (lambda k: k.step(), "step: expected the shared objects that it touches"),
        (lambda k: k.step(3), "step: 3, expected a shared object"),
    ],
)
def test_a_bad_argument_is_refused(make: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError), match=f"^{said}"):
        explore(make)
