"""Parts of a search as plain data, for another process or another day.

Threads are named by their path in the spawn tree and objects by their keys, since the small numbers
for both belong to one process. Trees are flat lists: they can be as deep as an execution is long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from vkprotocol.effects import Key

from vkemu.executors.controlled import Tids
from vkemu.exploration.record import Record
from vkemu.exploration.reduction.footprint import Footprint, Objects, Race
from vkemu.exploration.reduction.trace import Trace
from vkemu.exploration.reduction.wakeup import ELSEWHERE, Node, Tree
from vkemu.exploration.result import NondeterminismError
from vkemu.exploration.run import Run

Path: TypeAlias = tuple[int, ...]
Touched: TypeAlias = tuple[tuple[Key, bool], ...] | None
# (depth, thread, footprint), in preorder. In a sleep set the depth is 0, or -1 for ELSEWHERE.
# There may be hundreds of thousands: equal ones are one object, which pickles as a reference.
FlatNode: TypeAlias = tuple[int, Path, Touched]
Flat: TypeAlias = tuple[FlatNode, ...]


class Step(NamedTuple):
    """A step on the path to where a search goes on; and the state before it."""

    thread: Path
    touched: Touched
    sleep: Flat = ()  # what has been explored from there
    tree: Flat = ()  # what is to be explored from there


class Frontier(NamedTuple):
    """What is left of a search: from the states at `root` and below, and from the path's end.

    What turns up for the states above `root` is somebody else's to explore.
    """

    root: int = 0
    steps: tuple[Step, ...] = ()
    sleep: Flat = ()
    tree: Flat = ()


class Found(NamedTuple):
    """A reversal of a race, to be explored from the state before `position` of the path."""

    position: int
    events: Flat
    pasts: tuple[int, ...]  # of each, the events of these before it in happens-before, as bits


class Names:
    """Between the numbers of this process and names."""

    def __init__(self, tids: Tids, objects: Objects) -> None:
        self.tids = tids
        self.objects = objects
        self._paths: list[Path] = []
        self._nodes: dict[tuple[int, int, Footprint | None], FlatNode] = {}

    def path(self, tid: int) -> Path:
        if tid >= len(self._paths):
            self._paths = sorted(self.tids, key=self.tids.__getitem__)
        return self._paths[tid]

    def tid(self, path: Path) -> int:
        return self.tids.setdefault(path, len(self.tids))

    def touched(self, footprint: Footprint | None) -> Touched:
        if footprint is None:
            return None
        keys = self.objects.keys
        return tuple((keys[code >> 1], bool(code & 1)) for code in footprint)

    def footprint(self, touched: Touched) -> Footprint | None:
        if touched is None:
            return None
        return tuple(2 * self.objects.number_of(key) + write for key, write in touched)

    def node(self, tid: int, footprint: Footprint | None, depth: int = 0) -> FlatNode:
        node = self._nodes.get((depth, tid, footprint))
        if node is None:
            node = (depth, self.path(tid), self.touched(footprint))
            self._nodes[depth, tid, footprint] = node
        return node

    def numbered(self, node: FlatNode) -> tuple[int, Footprint | None]:
        _, path, touched = node
        return self.tid(path), self.footprint(touched)

    def flat(self, tree: Tree) -> Flat:
        found = []
        known = self._nodes
        stack: list[tuple[int, Node]] = [(0, node) for node in reversed(tree)]
        while stack:
            depth, (tid, footprint, below) = stack.pop()
            found.append(known.get((depth, tid, footprint)) or self.node(tid, footprint, depth))
            if below:
                stack += [(depth + 1, node) for node in reversed(below)]
        return tuple(found)

    def tree(self, flat: Flat) -> Tree:
        levels: list[Tree] = [[]]
        known: dict[int, tuple[int, Footprint | None]] = {}  # by identity, for as long as `flat`
        for node in flat:
            found = known.get(id(node))
            if found is None:
                found = known[id(node)] = self.numbered(node)
            below: Tree = []
            depth = node[0]
            del levels[depth + 1 :]
            levels[depth].append((*found, below))
            levels.append(below)
        return levels[0]

    def asleep(self, sleep: Tree) -> Flat:
        return tuple(
            (-1 if below is ELSEWHERE else 0, self.path(tid), self.touched(footprint))
            for tid, footprint, below in sleep
        )

    def sleep(self, flat: Flat) -> Tree:
        return [
            (self.tid(path), self.footprint(touched), ELSEWHERE if depth < 0 else [])
            for depth, path, touched in flat
        ]

    def reversal(self, trace: Trace, events: int, race: Race) -> Found:
        """The events independent of the first of a race, and its second."""
        first, _, tid, footprint, past, _ = race
        nodes = []
        pasts = []
        places: dict[int, int] = {}  # in the trace, and in what is found, as bits
        left = events
        while left:
            event = left & -left
            left ^= event
            n = event.bit_length() - 1
            nodes.append(self.node(trace.tids[n], trace.footprints[n]))
            pasts.append(_placed(trace.clocks[n] & (events ^ event), places))
            places[event] = 1 << len(places)
        if footprint is None:
            past = events
        else:
            for code in footprint:
                past |= trace.rivals[code]
        nodes.append(self.node(tid, footprint))
        pasts.append(_placed(past & events, places))
        return Found(first, tuple(nodes), tuple(pasts))

    def traces(self, several: list[Found]) -> Iterator[tuple[Trace, Race]]:
        """Reversals, each as a trace of its own and as the race it is the reversal of."""
        nodes = {id(node): node for found in several for node in found.events}
        known = {key: self.numbered(node) for key, node in nodes.items()}
        for found in several:
            trace = Trace(self.objects)
            for n, (node, past) in enumerate(zip(found.events, found.pasts, strict=True)):
                tid, footprint = known[id(node)]
                trace.place(tid, footprint or (), past | 1 << n)
            yield trace, (-1, n, tid, footprint, past, ())


def _placed(events: int, places: dict[int, int]) -> int:
    found = 0
    while events:
        event = events & -events
        events ^= event
        found |= places[event]
    return found


def retrace(
    run: Run,
    names: Names,
    frontier: Frontier,
    record: Record,
    take: Callable[[int], bool] | None = None,
) -> Iterator[tuple[int, Step]]:
    """Take the path of a frontier again: every step is yielded, to be recorded, and then taken, by
    `take`; it is taken first where only then is known what it touches."""
    execution = run.execution
    if take is None:
        take = execution.step
    for position, step in enumerate(frontier.steps):
        if not execution.runnable and execution.advance():
            record.advanced()
        tid = names.tid(step.thread)
        if tid not in execution.runnable:
            raise NondeterminismError(
                "the program is not the one that was being explored: "
                f"at step {position} thread {step.thread} cannot run"
            )
        if not execution.late:
            yield tid, step
        run.schedule.append(tid)
        if not take(tid):
            run.thread_failed()
        if execution.late:
            yield tid, step
        if run.watched:
            run.watch()
    if not execution.runnable and execution.advance():
        record.advanced()
