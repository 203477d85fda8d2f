"""Executions taken step by step, for those who look at every one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from vkprotocol.effects import Effect, Key, Thread, key_text

from vkemu.executors.controlled import Execution, Tids
from vkemu.executors.place import source_of
from vkemu.exploration.primitives.scopes import Cancellation

Path: TypeAlias = tuple[int, ...]
_PLAIN: Final = (str, bytes, float, type(None))
DEPTH_MAX: Final = 50  # of tuples in tuples, in a plain value


class Seen(NamedTuple):
    """A step as it was taken. Two that are equal did the same."""

    path: Path
    thread: str
    op: str
    key: Key
    write: bool
    guarded: bool
    also: tuple[tuple[Key, bool], ...]
    where: tuple[str, int]
    left: Any = None  # the state of its object afterwards, when that is a plain value
    threads: int = 0  # how many there are then

    def text(self, other: Seen) -> str:
        """What it did, as far as it needs to be said to tell it from `other`."""
        said = f"{self.op} {key_text(self.key)}"
        if self.where != other.where:
            said += f" at {self.where[0].rpartition('/')[2]}:{self.where[1]}"
        if repr(self.left) != repr(other.left):
            said += f" leaving {self.left!r}"
        if self.threads != other.threads:
            said += f" with {self.threads} threads"
        return said


def announced(thread: Thread) -> Seen:
    """What a thread is about to do."""
    effect = thread.pending
    assert effect is not None
    # That somebody may cancel it, a search finds out in the middle.
    besides = [pair for pair in effect.also if not isinstance(pair[0], Cancellation)]
    also = tuple((shared.key, write) for shared, write in besides)
    return Seen(
        thread.path, thread.name, effect.op, effect.obj.key, effect.write,
        effect.guard is not None, also, source_of(thread),
    )  # fmt: skip


class Stepwise(Execution):
    """Every step is a call of `step`, or of `again` in a replay. `seen` notes them, when asked."""

    def __init__(self, tids: Tids | None = None, *, noting: bool = False) -> None:
        super().__init__(tids)
        self.seen: list[Seen] | None = [] if noting else None

    def step(self, tid: int) -> bool:
        seen = self.seen
        if seen is None:
            return super().step(tid)
        thread = self.threads[tid]
        step = announced(thread)
        shared = thread.pending.obj  # type: ignore[union-attr]
        seen.append(step)  # it may not come back
        going = super().step(tid)
        self._noted(step, shared.state)
        return going

    def _noted(self, step: Seen, state: Any) -> None:
        assert self.seen is not None
        left = state if plain(state) else None
        self.seen[-1] = step._replace(left=left, threads=len(self.threads))

    def wander(self, bits: Callable[[int], int], schedule: list[int], limit: int) -> bool:
        for _ in range(limit):
            if not self.runnable:
                break
            tid = self.runnable[bits(24) * len(self.runnable) >> 24]
            schedule.append(tid)
            if not self.step(tid):
                return False
        return True

    def descend(
        self,
        schedule: list[int],
        effects: list[Effect],
        untried: list[list[int]],
        candidates: list[int],
        limit: int,
    ) -> bool:
        candidates = candidates or self.runnable
        for _ in range(limit):
            if not candidates:
                break
            tid = candidates[0]
            effect = self.threads[tid].pending
            assert effect is not None
            schedule.append(tid)
            effects.append(effect)
            untried.append(candidates[1:])
            candidates = self.runnable
            if not self.step(tid):
                return False
        return True

    def replay(self, schedule: list[int], effects: list[Effect], start: int, stop: int) -> int:
        for position in range(start, stop):
            if not self.again(schedule, effects, position):
                return position
        return stop

    def again(self, schedule: list[int], effects: list[Effect], position: int) -> bool:
        """Take a step of a schedule again. False when it is another."""
        thread = self.threads.get(schedule[position])
        if self.seen is None or thread is None or thread.pending is None:
            return super().replay(schedule, effects, position, position + 1) > position
        step = announced(thread)
        shared = thread.pending.obj
        same = super().replay(schedule, effects, position, position + 1) > position
        if same:
            self.seen.append(step)
            self._noted(step, shared.state)
        return same


def plain(value: Any, depth: int = DEPTH_MAX) -> bool:
    """Whether repr(value) is the same in every process."""
    if isinstance(value, tuple):
        return depth > 0 and all(plain(item, depth - 1) for item in value)
    bits_max = 10_000  # of an int; Python refuses to print much longer ones
    if isinstance(value, int):
        return value.bit_length() <= bits_max
    return isinstance(value, _PLAIN)
