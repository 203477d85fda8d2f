"""Every strategy says the same of programs at the corners, and their failures replay."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import pytest
from vkemu import explore, replay
from vkemu.exploration import TokenError
from vkemu.exploration.strategies import NAMES
from vkemu.exploration.token import STEPS_MAX, Stretch, Token, parse

from tests.exploration import corners

# program, interleavings, traces, failing traces, the message of the failure that is shown
TABLE: list[tuple[Any, int, int, int, str]] = [
    (corners.nobody, 1, 1, 0, ""),
    (corners.nothing_to_do, 1, 1, 0, ""),
    (corners.stillborn, 1, 1, 1, "a: ValueError: now"),
    (corners.foreign, 6, 6, 6, "a: TypeError: awaits 5, expected an effect"),
    (corners.foreign_none, 6, 6, 6, "a: TypeError: awaits None, expected an effect"),
    (corners.released_by_another, 2, 2, 2, "b: LockOrderError: b releases l, which it does not"),
    (corners.less_than_none, 2, 2, 2, "deadlock: deeper waits to acquire s (now 0)"),
    (corners.notify_without_lock, 1, 1, 1, "a: RuntimeError: a must hold c.lock to notify c"),
    (corners.lost_wakeup, 80, 14, 2, "deadlock: v waits to sleep c (asleep: v)"),
    (corners.one_event_for_two, 6, 4, 2, "deadlock: b waits to wait e (now False)"),
    (corners.short_queue, 36, 36, 0, ""),
    (corners.spawning_spawners, 60, 48, 0, ""),
    (corners.upgraded, 128, 22, 0, ""),
    (
        corners.two_of_three_wait,
        42,
        3,
        1,
        "deadlock: 1 waits to acquire b (held by 2); 2 ",
    ),
    (corners.not_recursive, 1, 1, 1, "deadlock: a waits to acquire a (held by a)"),
    (corners.unhashable, 6, 4, 4, "does not hold: k.at_end(lambda: False)"),
    (corners.too_long, 6, 4, 4, "does not hold: k.at_end(lambda: False)"),
    (corners.too_deep, 6, 4, 4, "does not hold: k.at_end(lambda: False)"),
    (corners.unspeakable, 6, 4, 4, "does not hold: k.at_end(lambda: False)"),
    (corners.waits_for_the_unspeakable, 1, 1, 1, "deadlock: a waits to wait x (now <Unspeakable>)"),
    (corners.mute, 1, 1, 1, "a: Mute: raise Mute (corners.py:"),
    (corners.many_lines, 1, 1, 1, "a: ValueError: second"),
    (corners.daemons, 6, 6, 0, ""),
    (corners.failing_daemon, 1, 1, 1, "d: KeyError: 'd'"),
    (corners.timers, 6, 2, 0, ""),
    (corners.failing_guard, 2, 2, 1, "a: ZeroDivisionError: division by zero"),
    (corners.catches_everything, 1, 1, 1, "deadlock: a waits to wait x (now 0)"),
    (corners.exits, 2, 1, 1, "a: SystemExit: 3"),
    (corners.both_fail, 2, 2, 2, "parent: KeyError: 'parent'"),
    (corners.same_names, 30, 4, 0, ""),
]
SAMPLING = {"random", "pct", "pos", "urw"}
FAILING = [program for program, *_, message in TABLE if message]


@pytest.mark.parametrize(("program", "interleavings", "traces", "failing", "message"), TABLE)
def test_every_strategy_says_the_same(
    program: Any, interleavings: int, traces: int, failing: int, message: str
) -> None:
    for strategy in NAMES:
        limit = 60 if strategy in SAMPLING else 300
        found = explore(program, strategy=strategy, stop_on_failure=False, max_executions=limit)
        if strategy in {"dfs", "bounded"}:
            assert (found.executions, found.exhausted) == (interleavings, True), strategy
        elif strategy in {"dpor", "source-dpor"}:
            counts = found.executions, found.failures, found.exhausted
            assert counts == (traces, failing, True), strategy
        if strategy == "urw" and program is corners.lost_wakeup:
            continue  # it hardly ever draws it: threads that wait are not what it is uniform over
        assert found.verdict == ("fail" if message else "pass"), strategy
        if found.failure is not None:
            assert message
            assert found.failure.message.startswith(message), strategy
            again = replay(program, found.failure.token)
            assert str(again) == str(found.failure)


def test_a_token_of_another_program_is_refused() -> None:
    """But where both do the same, with values that a token cannot name, and fail alike."""
    alike = {f.__name__ for f in (corners.unhashable, corners.too_long, corners.too_deep,
                                  corners.unspeakable)}  # fmt: skip
    failures = {program: explore(program).failure for program in FAILING}
    tokens = {program: failure.token for program, failure in failures.items() if failure}
    taken = []
    for mine, token in tokens.items():
        for other in FAILING:
            try:
                replay(other, token)
            except TokenError:
                continue
            taken.append({mine.__name__, other.__name__})
    assert sum(len(pair) == 1 for pair in taken) == len(FAILING)
    assert all(pair <= alike for pair in taken if len(pair) > 1)


CRAFTED = [
    Token(0, False, ()),
    Token(0, True, ()),
    Token(1, False, (Stretch(0, 0, 0),)),
    Token(1, True, (Stretch(0, 1, 0), Stretch(0, 0, 0))),
    Token(1, False, (Stretch(1 << 60, 1, 0),)),
    Token(1, False, (Stretch(0, STEPS_MAX, 0),)),
    Token(1, False, (Stretch(0, STEPS_MAX, 0), Stretch(0, STEPS_MAX, 0))),
    Token(1, False, (Stretch(2, 3, 7),)),
]


@pytest.mark.parametrize("token", CRAFTED)
def test_a_crafted_token_is_refused(token: Token) -> None:
    for program in FAILING:
        with pytest.raises(TokenError):
            replay(program, str(token))


def test_a_token_is_not_unpacked_without_bound() -> None:
    body = b"z" + zlib.compress(b"\x01" * 5_000_000, 9)
    raw = body + zlib.crc32(body).to_bytes(4, "big")
    with pytest.raises(TokenError, match="token of more than 4194304 bytes, unpacked"):
        parse("vkx1." + base64.urlsafe_b64encode(raw).decode().rstrip("="))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda k: k.lock(5), "lock: 5, expected its name"),
        (lambda k: k.cell(None), "cell: None, expected its name"),
        (lambda k: k.spawn(7, k.cell("x").load), "spawn: 7, expected the name of the thread"),
    ],
)
def test_a_name_is_a_name(make: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"^{said}$"):
        explore(make)
