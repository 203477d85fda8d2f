"""The words of a user program's memory: of each the stores that may be last.

A load has one right answer; more than one only where a system call is under way: what it does
happens somewhere between its beginning and its return, and until then both answers are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vkprotocol.limits import U64

Values = tuple[int, ...]
ZERO: Final[Values] = (0,)


@dataclass(eq=False, slots=True)
class Interval:
    """A word that the kernel reads or writes for a program, somewhere between two steps.

    `mask`: which bytes of it are written.

    `values`: what a read may find; of a write, what others store meanwhile or are about to store,
    which may be last.
    `freed`: a MADV_FREE of it was under way too, and which of the two came last nobody knows.
    """

    va: int
    written: int | None  # None: a read
    values: Values = ()
    freed: bool = False
    mask: int = U64

    def over(self, values: Values) -> Values:
        """What it makes of each of them."""
        assert self.written is not None
        if self.mask == U64:
            return (self.written,)
        return tuple(v & ~self.mask | self.written for v in values)


class Memory:
    """Words by their address, in all processes that see them; zero until something is stored. Of a
    file, by their place in it (Region.shift).

    `fading`: pages given up by MADV_FREE, zero at any time until somebody stores there. `open`,
    `freeing`, `copies`: reads, writes, MADV_FREEs (ranges) and forks under way.
    """

    __slots__ = (
        "busy", "copies", "fading", "file", "freeing", "open", "strays", "version", "words",
    )  # fmt: skip

    def __init__(self, words: dict[int, Values] | None = None, file: Memory | None = None) -> None:
        self.words: dict[int, Values] = {} if words is None else words
        self.file = file  # whose pages show until they are written to, and may be changed there
        # What was stored through a mapping that may be of this file, at whatever place.
        self.strays: list[int] = [] if file is None else file.strays
        self.version = 0  # of `words`
        self.fading: set[int] = set()
        self.open: list[Interval] = []
        self.freeing: list[tuple[int, int]] = []
        self.copies: list[Memory] = []
        self.busy = False  # one of the three is not empty

    def values(self, va: int) -> Values:
        """What a load may give now."""
        values = self.words.get(va, ZERO)
        if self.strays:
            values += tuple(self.strays)
        if self.busy:
            for i in self.open:
                if i.va == va and i.written is not None:
                    values += i.over(values)
        return values

    def loaded(self, va: int, value: int) -> None:
        """Seen once, it is what is there; but what fades may be seen before, and written after."""
        if not self.busy and (value == 0 or va >> 12 not in self.fading):
            self.words[va] = (value,)
            self.version += 1

    def store(self, va: int, value: int) -> None:
        self.words[va] = (value,)
        self.version += 1
        self.fading.discard(va >> 12)
        if self.busy:
            self._among_others(va, value)

    def may_store(self, va: int, value: int) -> None:
        """It may have gone elsewhere, to what is mapped there now or was before."""
        before, fading = self.values(va), va >> 12 in self.fading
        self.store(va, value)
        self.words[va] += before
        if fading:
            self.fading.add(va >> 12)

    def _among_others(self, va: int, value: int) -> None:
        self._meanwhile(va, value)
        for copy in self.copies:
            copy.words[va] = (*copy.words.get(va, ZERO), value)
            copy.version += 1
            copy._meanwhile(va, value)
        if any(start <= va < end for start, end in self.freeing):
            self.words[va] = (value, 0)
            self.fading.add(va >> 12)

    def _meanwhile(self, va: int, value: int) -> None:
        for interval in self.open:
            if interval.va == va:
                interval.values += (value,)

    # System calls.

    def begin(self, va: int, written: int | None, mask: int = U64) -> Interval:
        values = self.values(va)
        if written is not None:  # writes that are under way may come after it
            values = values[len(self.words.get(va, ZERO)) + len(self.strays) :]
        interval = Interval(va, written, values, mask=mask)
        interval.freed = any(start <= va < end for start, end in self.freeing)
        if written is not None:
            for value in interval.over(self.values(va)):
                self._among_others(va, value)
        self.open.append(interval)
        self.busy = True
        return interval

    def end(self, interval: Interval, done: bool, *, partly: bool = False) -> None:
        """`partly`: it failed, and may have got as far as this word."""
        self.open.remove(interval)
        self.version += 1
        if partly and interval.written is not None:
            values = self.values(interval.va)
            self.words[interval.va] = values + interval.over(values)
        elif done and interval.written is not None:
            zero = ZERO if interval.freed else ()
            others = interval.values
            if interval.mask == U64:
                now = (interval.written, *others)
            else:
                now = (*interval.over((*self.values(interval.va), *others)), *others)
            self.words[interval.va] = (*now, *zero)
            if not interval.freed:
                self.fading.discard(interval.va >> 12)
        self._settle()

    def free(self, start: int, end: int) -> None:
        """MADV_FREE begins."""
        self.freeing.append((start, end))
        self.busy = True
        for interval in self.open:
            if start <= interval.va < end:
                interval.freed = True
                interval.values += ZERO
        for memory in (self, *self.copies):
            memory.version += 1
            stored = [va for va in memory.words if start <= va < end]
            for va in stored:
                memory.words[va] += ZERO
            stored += [i.va for i in memory.open if start <= i.va < end]
            memory.fading.update(va >> 12 for va in stored)  # others are zero anyway

    def freed(self, start: int, end: int) -> None:
        self.freeing.remove((start, end))
        self._settle()

    def fork(self) -> Memory:
        """A copy that is being made: what is stored until it is `forked` may be in it or not."""
        copy = Memory(dict(self.words), self.file)
        if self.file is not None:
            self.file.copies.append(copy)
        copy.fading = set(self.fading)
        return self._copied_to(copy)

    def private(self) -> Memory:
        """What a private mapping of this file finds: a copy, which is never sure to be complete."""
        return self._copied_to(Memory(dict(self.words), self))

    def _copied_to(self, copy: Memory) -> Memory:
        for interval in self.open:  # they come before it or after it
            if interval.written is not None:
                values = copy.words.get(interval.va, ZERO)
                copy.words[interval.va] = (*values, *interval.over(values))
        self.copies.append(copy)
        self.busy = True
        return copy

    def forked(self, copy: Memory) -> None:
        self.copies.remove(copy)
        self._settle()

    def _settle(self) -> None:
        self.busy = bool(self.open or self.freeing or self.copies)
