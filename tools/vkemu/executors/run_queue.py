"""Whose turn it is: deficit round robin over the accounts of guests.

All threads that work for one guest - its lwps, the fault workers of their CPUs - are one account,
so that a guest with 64 virtual CPUs gets as much as one with one. In its turn an account may use a
quantum of processor time times its weight; what it uses beyond that, since a step is not
interrupted, is missing from its next one. (Shreedhar and Varghese 1995.)

Two classes come before the ring. The host's own threads - page daemon, IPIs - go first at every
turn. And an account that had nothing to do goes once before those that always have, so that a
quiet guest waits for one turn and not for one of each; it must then pass through the ring before it
may do so again (the new flows of RFC 8290, FQ-CoDel).
"""

from __future__ import annotations

from collections import deque
from typing import Final

QUANTUM_NS: Final = 1_000_000  # of processor time, a turn


class Account:
    """What threads share a turn. `used`: nanoseconds so far."""

    __slots__ = ("deficit", "name", "queued", "ready", "used", "weight")

    def __init__(self, name: str, weight: int = 1) -> None:
        self.name = name
        self.weight = weight
        self.deficit = 0
        self.used = 0
        self.ready: deque[int] = deque()  # tids, in the order in which they could go
        self.queued = False  # in `fresh` or in the ring


class RunQueue:
    """The accounts with something to do. Invariant: an account with ready threads is `queued`,
    unless it is the host's, or has its turn."""

    def __init__(self) -> None:
        self.host = Account("host")
        self.of: dict[int, Account] = {}  # tid -> account, where it is not the host's
        self._fresh: deque[Account] = deque()
        self._ring: deque[Account] = deque()
        self._turn: Account | None = None

    def add(self, tid: int) -> None:
        """The thread can go."""
        account = self.of.get(tid, self.host)
        account.ready.append(tid)
        if not account.queued and account is not self.host:
            account.queued = True
            self._fresh.append(account)

    def next(self) -> Account | None:
        """The account whose turn it is, its deficit what it may use; None: nobody can go."""
        if self.host.ready:
            self.host.deficit = QUANTUM_NS
            return self.host
        while True:
            if self._fresh:
                account = self._fresh.popleft()
            elif self._ring:
                account = self._ring.popleft()
                if not account.ready:
                    account.queued = False
                    continue
            else:
                return None
            # Who owes more than a turn from a step that took long waits for as many.
            account.deficit = min(account.deficit, 0) + QUANTUM_NS * account.weight
            if account.deficit > 0:
                return account
            self._ring.append(account)

    def done(self, account: Account) -> None:
        """Its turn is over. Also when it has nothing to do it passes through the ring."""
        if account is not self.host:
            self._ring.append(account)
