from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vkemu.executors.controlled import Execution
from vkprotocol.effects import Effect, Lock, LockOrderError, WaitChannel, curthread, perform

from tests.vkhost.machine import Machine
from vkhost.kern.token import Token, tsleep, tsleep_until

pytestmark = pytest.mark.usefixtures("guarded")


def test_a_token_excludes_and_a_shared_one_does_not() -> None:
    machine = Machine()
    token = Token("t")
    inside: list[str] = []

    async def hold(name: str, shared: bool) -> None:
        await (token.acquire_shared() if shared else token.acquire())
        inside.append(name)
        await token.release()
        inside.remove(name)

    a = machine.spawn("a", hold("a", True))
    b = machine.spawn("b", hold("b", True))
    c = machine.spawn("c", hold("c", False))
    machine.step(a)
    machine.step(b)

    assert inside == ["a", "b"]
    assert not c.runnable
    machine.finish(a, b)
    machine.step(c)
    assert inside == ["c"]


def test_a_token_recurses_and_is_released_once() -> None:
    machine = Machine()
    token = Token("t")

    async def twice() -> None:
        async with token:
            async with token:
                assert token.state == (curthread().tid, ())
            assert token.state == (curthread().tid, ())

    machine.do(twice())

    assert token.state == (None, ())


def test_upgrading_a_shared_token_is_an_error() -> None:
    async def upgrade() -> None:
        token = Token("t")
        await token.acquire_shared()
        await token.acquire()

    with pytest.raises(LockOrderError, match="upgrades shared t"):
        Machine().do(upgrade())


def test_releasing_a_token_that_is_not_held_is_an_error() -> None:
    with pytest.raises(LockOrderError, match="t, which is not held"):
        Machine().do(Token("t").release())


def test_sleeping_loses_the_tokens_and_waking_has_them_again() -> None:
    machine = Machine()
    one, two, chan = Token("one"), Token("two"), WaitChannel("chan")

    async def sleeper() -> None:
        await one.acquire()
        await two.acquire_shared()
        await one.acquire()
        await tsleep(chan)
        assert one.state[0] == curthread().tid
        assert two.state[1] == (curthread().tid,)
        for token in (one, two, one):
            await token.release()

    a = machine.spawn("a", sleeper())
    machine.blocked(a)

    assert one.state == two.state == (None, ())
    machine.do(chan.wakeup())
    machine.finish(a)
    assert one.state == two.state == (None, ())


@given(st.integers(0, 10_000))
@settings(max_examples=200)
def test_tokens_in_any_order_never_deadlock_and_always_exclude(seed: int) -> None:
    from random import Random

    ex = Execution()
    ex.checking = True
    tokens = [Token(f"t{i}") for i in range(3)]
    owner: list[int | None] = [None, None, None]

    async def worker(order: list[int]) -> None:
        for i in order:
            await tokens[i].acquire()
        me = curthread().tid
        for i in order:
            assert tokens[i].state[0] == me
            assert owner[i] is None
            owner[i] = me
        for i in reversed(order):
            owner[i] = None
            await tokens[i].release()

    random = Random(seed)
    for name in "abc":
        ex.spawn(name, worker(random.sample(range(3), random.randint(1, 3))))
    ex.run(random.choice, 2000)


def test_ssleep_loses_no_wakeup() -> None:
    # The waker may come as soon as the spinlock is free, which is before the sleeper sleeps.
    machine = Machine()
    spin, chan = Lock("spin"), WaitChannel("chan")
    ready: list[bool] = []

    async def sleeper() -> None:
        await spin.acquire()
        while not ready:
            await tsleep(chan, spin=spin)
        await spin.release()

    async def waker() -> None:
        await spin.acquire()
        ready.append(True)
        await spin.release()
        await chan.wakeup()

    a = machine.spawn("a", sleeper())
    b = machine.spawn("b", waker())
    while spin.state != b.tid:
        machine.step(b if b.runnable else a)
    machine.finish(b, a)


def test_a_sleep_ends_with_its_timeout() -> None:
    machine = Machine()
    outcomes: list[bool] = []

    async def sleeper() -> None:
        outcomes.append(await tsleep(WaitChannel("chan"), 1000))
        outcomes.append(await tsleep_until(Lock("l"), lambda owner: owner == 5, "x", 1000))

    machine.spawn("a", sleeper())
    machine.run()

    assert outcomes == [False, False]


def test_taking_back_tokens_waits_for_the_one_that_was_busy() -> None:
    """It used to wait for the one it had just given up, which is free: a spin under any scheduler
    that lets the same thread go on."""
    from vkemu import explore

    def program(k: Any) -> None:
        image, own = Token("image"), Token("own")

        async def owner() -> None:
            async with image:
                await perform(Effect(image, "look", write=True))

        async def other() -> None:
            async with own, image:
                pass

        k.spawn("owner", owner)
        k.spawn("other", other)

    result = explore(program, max_steps=100)

    assert result.verdict == "pass"
    assert result.exhausted
