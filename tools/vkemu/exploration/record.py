"""The path of a search: what it takes to take an execution again."""

from __future__ import annotations

from vkprotocol.effects import CLOCK, Effect


class Record:
    """The steps of an execution: enough to take them again, and to see that they differ."""

    __slots__ = ("advances", "effects", "tids")

    def __init__(self) -> None:
        self.tids: list[int] = []
        self.effects: list[Effect] = []
        # (position, clock): the virtual clock moved there before the step at `position`.
        self.advances: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.tids)

    def advanced(self) -> None:
        self.advances.append((len(self.tids), CLOCK[0]))

    def truncate(self, n: int) -> None:
        """Forget the steps from `n` on."""
        del self.tids[n:]
        del self.effects[n:]
        advances = self.advances
        # What came before step n was decided by the steps before it.
        while advances and advances[-1][0] > n:
            advances.pop()
