"""What a user program may see: an address space made of the system calls that returned, on words of
which user_memory.py knows the last stores. No kernel is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from vkprotocol.mman import MAP_ANON, MAP_FIXED, MAP_SHARED, MAP_SIZEALIGN

from vkemu.oracle.user_memory import Interval, Memory, Values

SHARES: Final = MAP_SHARED | MAP_SIZEALIGN  # a large page is never copied


@dataclass(eq=False, slots=True)
class Region:
    """Mapped addresses [start, end), each `shift` more than its place in the memory. `locked` by
    mlock, as far as is known."""

    start: int
    end: int
    prot: int
    shared: bool
    memory: Memory
    shift: int = 0
    locked: bool | None = False


@dataclass(slots=True)
class Copy:
    """A word that the kernel reads or writes for a program (copyin, copyout), and what was mapped
    there as it began; `later`: what has come to be mapped there since."""

    va: int
    region: Region | None
    interval: Interval | None
    version: int
    written: int | None
    mask: int
    later: list[tuple[Memory, Interval]] = field(default_factory=list)

    def follow(self, process: Process) -> None:
        """What is about to be written may go into the mapping that there is from now on."""
        region = process.at(self.va)
        if region is not None and self.written is not None:
            begun = region.memory.begin(self.va - region.shift, self.written, self.mask)
            self.later.append((region.memory, begun))

    def end(self, process: Process | None, done: bool, partly: bool) -> None:
        moved = process is not None and (
            self.version != process.version or process.doubted(self.va)
        )
        if self.region is not None and self.interval is not None:
            self.region.memory.end(self.interval, done and not moved, partly=partly or moved)
        for memory, interval in self.later:
            memory.end(interval, done=False, partly=True)
        if process is not None and self.written is not None:
            for change in process.changes.values():
                if change.name == "mmap" and change.start <= self.va < change.end:
                    change.stores[self.va] = (*change.stores.get(self.va, ()), self.written)


@dataclass(eq=False, slots=True)
class Change:
    """An mmap, munmap or mprotect under way. `stores`: what may have gone into the new mapping;
    `forked`: a fork was under way too, whose child may share it or not; `met`: of others that have
    ended meanwhile, before it or after."""

    name: str
    start: int
    end: int
    prot: int
    flags: int
    stores: dict[int, Values] = field(default_factory=dict)
    forked: bool = False
    file: tuple[Memory, int] | None = None  # an mmap of it, from this place on
    met: list[tuple[int, int]] = field(default_factory=list)

    @property
    def unknown(self) -> bool:
        """Of a file of which nothing has been told."""
        return self.name == "mmap" and not self.flags & MAP_ANON and self.file is None

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
                    where.append(replace(r, start=first, end=last))
        self.regions = kept
        return out

    def inside(self, start: int, end: int) -> Iterator[Region]:
        return (r for r in self.regions if r.start < end and start < r.end)

    def whole(self, start: int, end: int) -> bool:
        """Without a hole."""
        return sum(min(r.end, end) - max(r.start, start) for r in self.inside(start, end)) == (
            end - start
        )

    def lock(self, start: int, end: int, locked: bool | None) -> None:
        was = self._cut(start, end)
        for region in was:
            region.locked = locked
        self.regions += was

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
        for other in self.changes.values():
            other.met.append((change.start, change.end))
            change.met.append((other.start, other.end))
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
        for start, end in overlapping(change.met, [change]):  # which of the two is on top?
            self.doubt(max(start, change.start), min(end, change.end))

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


def overlapping(
    spans: Iterable[tuple[int, int]], changes: Iterable[Change]
) -> Iterator[tuple[int, int]]:
    """Of these ranges those that some change is about."""
    all_changes = list(changes)
    for start, end in spans:
        if any(c.start < end and start < c.end for c in all_changes):
            yield start, end
