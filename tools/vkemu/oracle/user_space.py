"""What a user program may see: an address space made of the system calls that returned, and of each
word the stores that may be last.

No kernel is looked at. Steps are ordered, so a word has one last store and a load one right answer;
more than one only where a system call is under way: what it does happens somewhere between its
beginning and its return, and until then both answers are right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from vkprotocol.limits import U64
from vkprotocol.mman import MAP_FIXED, MAP_SHARED, MAP_SIZEALIGN

SHARES: Final = MAP_SHARED | MAP_SIZEALIGN  # a large page is never copied
Values = tuple[int, ...]
ZERO: Final[Values] = (0,)


@dataclass(eq=False, slots=True)
class Interval:
    """A word that the kernel reads or writes for a program, somewhere between two steps.

    `mask`: which bytes of it are written.

    `values`: what a read may find; of a write, what others store meanwhile, which may be last.
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
        "busy", "copies", "fading", "file", "freeing", "open", "version", "words",
    )  # fmt: skip

    def __init__(self, words: dict[int, Values] | None = None, file: Memory | None = None) -> None:
        self.words: dict[int, Values] = {} if words is None else words
        self.file = file  # whose pages show until they are written to, and may be changed there
        self.version = 0  # of `words`
        self.fading: set[int] = set()
        self.open: list[Interval] = []
        self.freeing: list[tuple[int, int]] = []
        self.copies: list[Memory] = []
        self.busy = False  # one of the three is not empty

    def values(self, va: int) -> Values:
        """What a load may give now."""
        values = self.words.get(va, ZERO)
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

    def _among_others(self, va: int, value: int) -> None:
        for interval in self.open:
            if interval.va == va:
                interval.values += (value,)
        for copy in self.copies:
            copy.words[va] = (*copy.words.get(va, ZERO), value)
            copy.version += 1
        if any(start <= va < end for start, end in self.freeing):
            self.words[va] = (value, 0)
            self.fading.add(va >> 12)

    # System calls.

    def begin(self, va: int, written: int | None, mask: int = U64) -> Interval:
        interval = Interval(va, written, () if written is not None else self.values(va), mask=mask)
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
            for va in [va for va in memory.words if start <= va < end]:
                memory.words[va] += ZERO
            memory.fading.update(range(start >> 12, end >> 12))

    def freed(self, start: int, end: int) -> None:
        self.freeing.remove((start, end))
        self._settle()

    def fork(self) -> Memory:
        """A copy that is being made: what is stored until it is `forked` may be in it or not."""
        copy = Memory(dict(self.words), self.file)
        if self.file is not None:
            self.file.copies.append(copy)
        copy.fading = set(self.fading)
        for interval in self.open:
            if interval.written is not None:
                copy.words[interval.va] = (*copy.words.get(interval.va, ZERO), interval.written)
        self.copies.append(copy)
        self.busy = True
        return copy

    def private(self) -> Memory:
        """What a private mapping of this file finds: a copy, which is never sure to be complete."""
        copy = Memory(dict(self.words), self)
        self.copies.append(copy)
        self.busy = True
        return copy

    def forked(self, copy: Memory) -> None:
        self.copies.remove(copy)
        self._settle()

    def _settle(self) -> None:
        self.busy = bool(self.open or self.freeing or self.copies)


@dataclass(eq=False, slots=True)
class Region:
    """Mapped addresses [start, end), each `shift` more than its place in the memory."""

    start: int
    end: int
    prot: int
    shared: bool
    memory: Memory
    shift: int = 0


@dataclass(slots=True)
class Copy:
    """A word that the kernel reads or writes for a program (copyin, copyout), and what was mapped
    there as it began."""

    va: int
    region: Region | None
    interval: Interval | None
    version: int


@dataclass(eq=False, slots=True)
class Change:
    """An mmap, munmap or mprotect under way. `stores`: what may have gone into the new mapping;
    `forked`: a fork was under way too, whose child may share it or not."""

    name: str
    start: int
    end: int
    prot: int
    flags: int
    stores: dict[int, Values] = field(default_factory=dict)
    forked: bool = False
    file: tuple[Memory, int] | None = None  # an mmap of it, from this place on

    def covers(self, va: int, mapped: bool) -> bool:
        if self.name == "mmap" and not self.flags & MAP_FIXED:
            return not mapped  # at any free place
        return self.start <= va < self.end


def within(span: tuple[int, int], change: Change) -> bool:
    return change.start <= span[0] and span[1] <= change.end


@dataclass(eq=False, slots=True)
class Fork:
    """A fork under way: the child's regions, with the memory each is copied from."""

    regions: list[tuple[Region, Memory | None]]
    unsure: list[tuple[int, int]]

    def forget(self) -> None:
        for region, source in self.regions:
            if source is not None:
                source.forked(region.memory)


class Process:
    """The address space of a program. `changes` by thread; `unsure`: ranges of which nothing is
    known any more, as a call that failed may have done half of its work."""

    __slots__ = ("changes", "forks", "loose", "regions", "unsure", "version", "who")

    def __init__(self, who: str) -> None:
        self.who = who
        self.regions: list[Region] = []
        self.changes: dict[int, Change] = {}
        self.forks: dict[int, Fork] = {}
        self.unsure: list[tuple[int, int]] = []
        self.version = 0  # of what is mapped: +1 as a change begins, +1 as it ends
        self.loose = False  # not all is known

    def at(self, va: int) -> Region | None:
        for region in self.regions:
            if region.start <= va < region.end:
                return region
        return None

    def add(
        self, start: int, end: int, prot: int, shared: bool, memory: Memory, shift: int = 0
    ) -> None:
        self._cut(start, end)
        self.regions.append(Region(start, end, prot, shared, memory, shift))

    def _cut(self, start: int, end: int) -> list[Region]:
        """Take the range out; what was there."""
        kept: list[Region] = []
        out: list[Region] = []
        for r in self.regions:
            for first, last, where in (
                (r.start, min(r.end, start), kept),
                (max(r.start, start), min(r.end, end), out),
                (max(r.start, end), r.end, kept),
            ):
                if first < last:
                    where.append(Region(first, last, r.prot, r.shared, r.memory, r.shift))
        self.regions = kept
        return out

    # Changes.

    def begin(self, tid: int, change: Change) -> None:
        if tid not in self.changes:  # a call that had to wait begins again
            self.changes[tid] = change
            change.forked = bool(self.forks)
            self._changed(change)

    def end(self, tid: int, done: bool, value: int) -> None:
        change = self.changes.pop(tid)
        if change.name == "mmap" and not change.flags & MAP_FIXED:
            change.end += value - change.start
            change.start = value
        self._changed(change)
        if not done:
            if change.name == "mmap" and change.flags & MAP_FIXED:
                self.doubt(change.start, change.end)
            return
        if not self.changes and change.name != "mprotect":
            self.unsure = [u for u in self.unsure if not within(u, change)]
            self.loose = bool(self.unsure)
        was = self._cut(change.start, change.end)
        if change.name == "mmap":
            shared = bool(change.flags & SHARES)
            memory, shift = Memory(), 0
            if change.file is not None:
                memory, shift = change.file[0], change.start - change.file[1]
                memory = memory if shared else memory.private()
            for va, values in change.stores.items():
                memory.words[va - shift] = (*memory.values(va - shift), *values)
            memory.version += 1
            self.add(change.start, change.end, change.prot, shared, memory, shift)
            if shared and change.forked:
                self.doubt(change.start, change.end)
        elif change.name == "mprotect":
            for region in was:
                region.prot = change.prot
            self.regions += was

    def _changed(self, change: Change) -> None:
        self.version += 1
        for fork in self.forks.values():
            fork.unsure.append((change.start, change.end))
        self.loose = bool(self.changes or self.unsure)

    def doubt(self, start: int, end: int) -> None:
        self.unsure.append((start, end))
        self.loose = True
        for fork in self.forks.values():
            fork.unsure.append((start, end))

    def doubted(self, va: int) -> bool:
        return any(start <= va < end for start, end in self.unsure)

    def covering(self, va: int, region: Region | None) -> list[Change]:
        return [c for c in self.changes.values() if c.covers(va, region is not None)]

    # fork.

    def begin_fork(self, tid: int) -> None:
        """From here on. One that begins again has done nothing yet."""
        self.end_fork(tid)
        for change in self.changes.values():
            change.forked = True
        copied: dict[Memory, Memory] = {}
        regions: list[tuple[Region, Memory | None]] = []
        for r in self.regions:
            source = memory = None
            if not r.shared and r.memory not in copied:
                source, copied[r.memory] = r.memory, r.memory.fork()
            memory = r.memory if r.shared else copied[r.memory]
            copy = Region(r.start, r.end, r.prot, r.shared, memory, r.shift)
            regions.append((copy, source))
        unsure = [(c.start, c.end) for c in self.changes.values()]
        self.forks[tid] = Fork(regions, self.unsure + unsure)

    def end_fork(self, tid: int) -> Fork | None:
        fork = self.forks.pop(tid, None)
        if fork is not None:
            fork.forget()
        return fork
