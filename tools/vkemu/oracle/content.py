"""Not an invariant of the kernel but of the events: a load gives what was stored.

A difference means that something changed memory without saying so, and that every other verdict
may be wrong. Off by default; tests of the host and of logs turn it on.
"""

from __future__ import annotations

from vkemu.oracle.frame import Id
from vkemu.oracle.shadow import Shadow


class Content:
    """Words as memory.py has them against words as loads give them."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow

    def mem_load(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        frame = self.shadow.frame(pfn)
        told = frame.words.get(idx, 0)
        if frame.initialised and told != value:
            raise AssertionError(
                f"{self.shadow.now()}: the events so far say {told}. Nobody reported a change"
            )
