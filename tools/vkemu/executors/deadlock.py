"""What there is to say of threads that wait for each other, or for what nobody does."""

from __future__ import annotations

from collections.abc import Mapping

from vkprotocol.effects import Thread, key_text

from vkemu.executors.announced import blocked_on
from vkemu.executors.place import place_of


class Deadlock(AssertionError):
    """No thread can run, none waits for time, and some are not done."""

    objects: tuple[str, ...] = ()  # what they wait for
    details: tuple[str, ...] = ()  # who waits for what, and in which line

    @classmethod
    def of(cls, stuck: list[Thread], threads: Mapping[int, Thread]) -> Deadlock:
        """`stuck`: those that wait; `threads`: all there are."""
        waits = [blocked_on(thread, threads) for thread in stuck]
        error = cls("deadlock: " + "; ".join(waits))
        places = [place_of(thread) for thread in stuck]
        error.details = tuple(
            f"{wait}  {file.rpartition('/')[2]}:{line}"
            for wait, (file, line) in zip(waits, places, strict=True)
        )
        error.objects = tuple(key_text(t.pending.obj.key) for t in stuck if t.pending is not None)
        return error
