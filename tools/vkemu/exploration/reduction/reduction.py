"""What the partial-order reductions share: the tree they walk, and how it grows.

A node of the walk is a state on the path. It has a sleep set (whose step need not be taken there,
since all that begins with it has been explored) and a tree of what is still to be explored. The
reductions differ in what they put into the tree when they find a race.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vkprotocol.effects import Effect, Shared

from vkemu.exploration.inside import loose
from vkemu.exploration.path import Path
from vkemu.exploration.reduction import afterwards
from vkemu.exploration.reduction.contents import Contents
from vkemu.exploration.reduction.ending import Ending
from vkemu.exploration.reduction.footprint import Objects, Race, dependent
from vkemu.exploration.reduction.frontier import Found, Frontier, Names, Step, retrace
from vkemu.exploration.reduction.observation import View
from vkemu.exploration.reduction.trace import Trace
from vkemu.exploration.reduction.unannounced import Unannounced, changeable
from vkemu.exploration.reduction.wakeup import ELSEWHERE, Node, Tree

if TYPE_CHECKING:
    from vkemu.exploration.run import Run


class Reduction(Path):
    """Invariant: trace, `sleeps` and `trees` have one entry for every event of the path."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.view = View(objects)  # of what must always hold
        self.restart()

    def restart(self) -> None:
        """Begin again from the first execution."""
        self.trace = Trace(self.objects)
        super().__init__(self.trace)
        # At every event: whose step need not be taken there, since it was explored before;
        # and what is still to be explored instead of the event.
        self.sleeps: list[Tree] = []
        self.trees: list[Tree] = []
        self.sleep: Tree = []  # where the path ends
        self.tree: Tree = []
        self.waiting: list[Race] = []  # of threads that could not go on
        self.races: list[Race] = []
        self.stale = False  # more depends on each other than was known: `restart`
        self.late = False  # what steps touch is known after them: see `afterwards`
        self.extent = self.objects.extent
        self.floor: int | None = 0  # it does not turn back beyond it; None: to be seen
        self.outbox: dict[Found, None] = {}  # what turned up for those
        self.names: Names | None = None  # once the search has been resumed
        self.resumed = False
        self.unannounced = Unannounced(self.objects, self.trace)
        self.contents = Contents(self.objects, self.trace)
        self.ending = Ending(self.objects, self.trace)
        # Steps that may be spent on what comes after executions that are cut: it is not known, and
        # so may depend on all that was.
        self.future_steps = 200_000

    def backtrack(self) -> bool:
        if self.resumed:
            self.resumed = False
            return True
        if self.floor is None:
            self.floor = self.lowest()
        trees = self.trees
        at = len(trees) - 1
        while at >= self.floor and not (trees[at] and self.wanted(at)):
            at -= 1
        if at < self.floor:
            return False
        self.turned(at)
        self.turn(at)
        return True

    def lowest(self) -> int:
        """Where something sleeps that is explored elsewhere, more may have to be explored than is
        known yet."""
        sleeps = self.sleeps if len(self.sleeps) > self.kept else [*self.sleeps, self.sleep]
        held = [any(below is ELSEWHERE for _, _, below in sleep) for sleep in sleeps]
        return max([self.root, *(n + 1 for n, here in enumerate(held) if here)])

    def turn(self, at: int) -> None:
        """Shorten the path to the state at `at`: the step it took there is explored."""
        trace = self.trace
        self.sleep = [*self.sleeps[at], (trace.tids[at], trace.footprints[at], [])]
        self.tree = self.trees[at]
        trace.truncate(at)
        if self.unannounced.looks:
            self.unannounced.truncate(at)
        del self.sleeps[at:]
        del self.trees[at:]

    def wanted(self, at: int) -> bool:
        """Whether something of the tree there has to be explored still."""
        if self.late:
            trace = self.trace
            sleep = [*self.sleeps[at], (trace.tids[at], trace.footprints[at], [])]
            self.trees[at][:] = afterwards.uncovered(self.trees[at], sleep)
        return bool(self.trees[at])

    def conduct(self, run: Run) -> None:
        self.waiting = []
        super().conduct(run)
        program = run.program
        program.unannounced = program.seen = None
        unannounced = self.unannounced
        looked = unannounced.looks and unannounced.unordered()
        if looked or self.objects.extent != self.extent:
            self.stale = True
        guards = program.guards
        if guards.awaited and not self.objects.unsure:
            why = guards.moving or changeable(self.trace, guards.awaited)
            if why:
                self.objects.doubt(why)
                self.stale = True
        if self.objects.loose:
            self.stale |= self.contents.unordered()
        elif not (self.late or program.only_ours) and (
            loose(self.trace.befores[self.kept :]) or (unannounced.looks and unannounced.loose())
        ):
            self.objects.loose = self.stale = True
        if program.ends and self.ending.unordered():
            self.stale = True
        if self.view.grown:
            self.view.grown = False
            self.stale = True
        if self.stale:
            return
        end = len(self.trace)
        self.races = self.trace.races
        if self.waiting:
            self.races = [*self.races, *self.trace.pretend(self.waiting)]
        self.reverse_races()
        if self.waiting:
            self.trace.truncate(end)

    def asks(self, run: Run) -> bool:
        return self.objects.unsure

    def extend(self, run: Run) -> None:
        self.look(run)
        trace = self.trace
        execution = run.execution
        if execution.late:
            afterwards.extend(self, run)
            return
        execution.on_spawn = trace.spawned
        threads = execution.threads
        runnable = execution.runnable
        add = trace.add
        befores = trace.befores
        told = self.objects.loose or run.program.ends
        step = self.stepping(run) if told else execution.step
        sleeps = self.sleeps
        trees = self.trees
        sleep = self.sleep
        tree = self.tree
        tid = -1
        turn = 0
        steps_max = 100
        turn_steps = min(steps_max, 1 + run.max_steps // 8)
        for _ in range(len(trace), run.max_steps):
            while not runnable:
                if not execution.left:
                    return
                self.waiting += trace.waiting(execution)
                if not execution.advance():
                    return
                trace.advanced()
            below: Tree = []
            if tree:
                tid, _, below = node = tree.pop(0)
                if tid not in runnable:
                    tid, below = instead(node, tree, runnable, sleep)
            elif sleep:
                tid = awake(runnable, sleep)
            elif tid < 0 or not threads[tid].runnable:
                tid = runnable[0]
                turn = 0
            else:  # on with the same thread, but one that spins must not keep the others waiting
                turn += 1
                if turn == turn_steps:
                    turn = 0
                    tid = runnable[(runnable.index(tid) + 1) % len(runnable)]
            if tid < 0:
                self.waiting += trace.waiting(execution)
                run.blocked = True
                return
            effect = threads[tid].pending
            assert effect is not None
            shared = effect.obj
            footprint = add(tid, effect)
            sleeps.append(sleep)
            trees.append(tree)
            if sleep:
                sleep = [
                    sleeper
                    for sleeper in sleep
                    if sleeper[0] != tid
                    and sleeper[1] is not None
                    and not dependent(sleeper[1], footprint)
                ]
            tree = below
            stopped = not step(tid) and run.thread_failed()
            if not effect.write and shared.state is not befores[-1]:
                self.load_changed(shared)
            if stopped or (run.watched and not self.watch(run)):
                return
        self.cut(run)

    def stepping(self, run: Run) -> Callable[[int], bool]:
        """New steps come now: what takes them, and sees what they do besides."""
        program = run.program
        step = self.contents.stepping(run) if self.objects.loose else run.execution.step
        if program.ends and not program.only_ours:
            step = self.ending.stepping(program, step)
        return step

    def cut(self, run: Run) -> None:
        """The execution is as long as it may be. What would have come is not known."""
        trace = self.trace
        execution = run.execution
        self.waiting += trace.pending(execution)
        unknown = trace.futures(execution, self.future_steps // max(run.max_steps, 1))
        self.future_steps -= len(unknown) * run.max_steps
        self.waiting += unknown
        run.cut = bool(execution.runnable) or execution.advance()

    def left(self) -> list[Tree]:
        return self.trees

    def export(self, names: Names) -> Frontier:
        """What is left to explore. Call between `start` and `conduct`."""
        steps = tuple(
            Step(names.path(tid), names.touched(footprint), names.asleep(sleep), names.flat(tree))
            for tid, footprint, sleep, tree in zip(
                self.trace.tids, self.trace.footprints, self.sleeps, self.trees, strict=True
            )
        )
        sleep, tree = names.asleep(self.sleep), names.flat(self.tree)
        return Frontier(self.root, steps, sleep, tree)

    def at_floor(self, names: Names) -> Frontier:
        """What is known of the state at `floor`, when all is explored from there on."""
        assert self.floor is not None
        if len(self.trace) > self.floor:
            self.turn(self.floor)
        else:
            self.tree = []  # of the last execution: its end is reached
        return self.export(names)

    def resume(self, run: Run, names: Names, frontier: Frontier) -> None:
        """Go on from there: take the path again, to know what happens before what."""
        self.restart()
        self.begun = True
        self.names = names
        self.root = frontier.root
        self.floor = None
        self.kept = len(frontier.steps)
        run.program.unannounced = self.unannounced
        run.begin()
        run.settle()
        run.execution.on_spawn = self.trace.spawned
        add: Callable[[int, Effect], object] = self.trace.add
        self.late = run.execution.late
        if self.late:
            add = afterwards.adding(self.trace, run.execution)
        take = None if self.late else self.stepping(run)
        for tid, step in retrace(run, names, frontier, self.trace, take):
            effect = run.execution.effect_of(tid)
            assert effect is not None
            add(tid, effect)
            if self.late:
                afterwards.same(names.touched(self.trace.footprints[-1]), step)
            self.sleeps.append(names.sleep(step.sleep))
            self.trees.append(names.tree(step.tree))
        self.sleep = names.sleep(frontier.sleep)
        self.tree = names.tree(frontier.tree)
        if self.late:
            self.tree = afterwards.uncovered(self.tree, self.sleep)
        self.resumed = bool(self.tree)  # else all is explored at the path's end
        for tid in names.tids.values():
            self.trace.past_of(tid)  # makes room for the thread
        self.remember(run)
        run.finish()
        run.program.unannounced = None  # what is looked at on the path is noted

    def look(self, run: Run) -> None:
        """New steps come now: what can `always` see, and what do threads look at?"""
        program = run.program
        program.unannounced = self.unannounced
        if run.watched:
            program.seen = self.view.saw
            self.view.look(program)

    def watch(self, run: Run) -> bool:
        """A step was taken. False when what must always hold does not, and that ends it."""
        if run.program.late:
            self.view.see_all(run.watched[-1], "is said in the middle of an execution")
        going = run.watch()
        self.view.stepped()
        return going

    def load_changed(self, shared: Shared) -> None:
        """A load left its object another: fine where it says how, else it was no load."""
        if not hasattr(shared, "commute") and self.objects.order(shared.key):
            self.stale = True

    def reverse_races(self) -> None:
        """See to it that the other order of every race is explored too."""
        raise NotImplementedError


def instead(node: Node, tree: Tree, runnable: list[int], sleep: Tree) -> tuple[int, Tree]:
    """For a thread that cannot run: its step depends on more than the race it comes from. Any other
    will do, after those that are to be explored anyway."""
    for n, (tid, _, below) in enumerate(tree):
        if tid in runnable:
            tree[n] = node
            return tid, below
    return awake(runnable, sleep), []


def awake(runnable: list[int], sleep: Tree) -> int:
    """The first thread that can run and is not asleep, or -1."""
    asleep = {sleeper[0] for sleeper in sleep}
    for tid in runnable:
        if tid not in asleep:
            return tid
    return -1
