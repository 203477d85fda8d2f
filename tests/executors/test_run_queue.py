"""Turns: who has much to do gets its share and no more, who has little does not wait for it."""

from __future__ import annotations

from vkemu.executors.run_queue import QUANTUM_NS, Account, RunQueue


def turns(queue: RunQueue, count: int, cost: dict[str, int]) -> list[str]:
    """Whose turns they are, when each always has more to do and uses what `cost` says."""
    taken = []
    for _ in range(count):
        account = queue.next()
        assert account is not None
        taken.append(account.name)
        account.deficit -= cost.get(account.name, account.deficit)
        queue.done(account)
    return taken


def busy(*accounts: Account) -> RunQueue:
    queue = RunQueue()
    for tid, account in enumerate(accounts):
        queue.of[tid] = account
        queue.add(tid)
    return queue


def test_a_quiet_guest_waits_for_one_turn_however_many_are_busy() -> None:
    queue = busy(*(Account(f"busy{n}") for n in range(100)))
    turns(queue, 250, {})
    queue.of[1000] = quiet = Account("quiet")
    queue.add(1000)
    assert queue.next() is quiet


def test_who_is_quiet_by_turns_gains_nothing_by_it() -> None:
    """It must pass through the ring before it goes first again."""
    queue = busy(*(Account(f"busy{n}") for n in range(3)))
    queue.of[9] = sly = Account("sly")
    seen = []
    for _ in range(40):
        if not sly.ready:
            queue.add(9)
        account = queue.next()
        assert account is not None
        seen.append(account.name)
        if account is sly:
            sly.ready.clear()
        queue.done(account)
    assert seen.count("sly") <= 11


def test_turns_are_as_long_as_the_share_says() -> None:
    one, three = Account("one"), Account("three", weight=3)
    queue = busy(one, three)
    used = {"one": 0, "three": 0}
    for _ in range(20):
        account = queue.next()
        assert account is not None
        used[account.name] += account.deficit
        account.deficit = 0
        queue.done(account)
    assert used == {"one": 10 * QUANTUM_NS, "three": 30 * QUANTUM_NS}


def test_a_step_that_takes_long_is_paid_for() -> None:
    queue = busy(Account("long"), Account("short"))
    taken = turns(queue, 40, {"long": 4 * QUANTUM_NS})
    assert 7 <= taken.count("long") <= 9


def test_the_host_goes_first() -> None:
    queue = busy(Account("guest"))
    queue.add(77)
    assert queue.next() is queue.host
    queue.host.ready.clear()
    account = queue.next()
    assert account is not None
    assert account.name == "guest"
