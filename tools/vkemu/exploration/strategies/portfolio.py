"""`portfolio`: several strategies in turn, one execution each.

Which one finds a bug first differs from bug to bug by orders of magnitude; a portfolio is never
worse than the best by more than the number of its members (Gomes, Selman: Algorithm Portfolios,
2001). It ends when its exhaustive member has nothing left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vkemu.exploration.strategies.strategy import Strategy

if TYPE_CHECKING:
    from vkemu.exploration.run import Run


class Portfolio(Strategy):
    name = "portfolio"
    exhaustive = True

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = members
        self.turn = -1

    def start(self) -> bool:
        self.turn = (self.turn + 1) % len(self.members)
        return bool(self.members[self.turn].start())

    def conduct(self, run: Run) -> None:
        member = self.members[self.turn]
        member.conduct(run)
        if getattr(member, "stale", False):
            member.restart()

    def finish(self, complete: bool) -> None:
        self.members[self.turn].finish(complete)
