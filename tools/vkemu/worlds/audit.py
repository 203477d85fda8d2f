"""Whether the footprints explain what happens: no verdict is better than they are.

Executions are taken again in another order of the same trace: a random one in which whatever
happens before another still does. Every step must touch what it touched, and the end be the same;
else two steps that were held to be independent are not. It is tried for the first executions of a
search, for fewer and fewer later on, and for the last.

That says nothing of traces that the search never came to. So when a reduction says that there are
no more, executions are drawn, and each has to be of a trace that was seen.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from vkemu.exploration.checking.audit import Audit
from vkemu.exploration.reduction.afterwards import adding, form_of
from vkemu.exploration.reduction.reduction import Reduction
from vkemu.exploration.reduction.trace import Trace
from vkemu.exploration.result import Unseen
from vkemu.exploration.run import Run
from vkemu.worlds.noting import LOG, readable
from vkemu.worlds.world import World


class WorldAudit(Audit):
    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.random = Random(0)
        self.last: Taken | None = None
        self.trace: Trace | None = None  # of the search; another when it began again
        self.paths: list[tuple[int, ...]] = []  # of threads, by number

    def saw(self, strategy: object) -> None:
        if isinstance(strategy, Reduction):
            if strategy.trace is not self.trace:
                self.trace = strategy.trace
                self.forms.clear()
            self.forms.add(self.form_of(strategy.trace))

    def check(self, run: Run) -> None:
        world: Any = run.execution
        if world.stale():
            return
        taken = Taken(run)
        if taken.steps:
            self.last = taken
            if not taken.partial:
                self.finalizers(taken)
            self.reorder(taken)

    def finalizers(self, taken: Taken) -> None:
        shared = {key for step in taken.steps for key, _ in step.codes}
        late = sorted({readable(place) for place in LOG.released() if place in shared})
        if late:
            raise Unseen(
                f"a finalizer writes {', '.join(late[:3])}: when it runs is not in the schedule"
            )

    def form_of(self, trace: Trace) -> int:
        """The same in every process."""
        tids = self.program.tids
        if len(self.paths) < len(tids):
            self.paths = sorted(tids, key=tids.__getitem__)
        world: Any = self.program.execution
        return form_of(trace, self.paths, failed=world.fell)

    def learned(self) -> bool:
        return bool(self.forms) and self.draw()

    def conclude(self) -> None:
        build: Any = self.program.build
        if self.last is not None and self.last.renewed == build.renewed:
            self.reorder(self.last)

    def draw(self) -> bool:
        """Executions of nobody's choice: is there one that the search did not come to? True when
        one looked at more than was followed, so that the search has to begin again."""
        least, most = 8, min(max(64, len(self.forms) // 2), 256)  # executions
        run = self.again
        counts: Counter[int] = Counter()
        for n in range(most):
            # Turing: the share of the unseen is about that of what was seen once.
            if n >= least and 1 not in counts.values():
                break
            form = self.drawn(run)
            world: Any = run.execution
            if world.stale():
                return True
            if form is not None:
                counts[form] += 1
                if form not in self.forms:
                    steps = ", ".join(run.execution.threads[tid].name for tid in run.schedule)
                    end = f" ({run.message()})" if run.error is not None else ""
                    raise Unseen(f"the search left a trace out: {steps}{end}")
        return False

    def drawn(self, run: Run) -> int | None:
        """The form of an execution, if it came to an end."""
        run.begin()
        world: Any = run.execution
        trace = Trace(self.program.numbers)
        add = adding(trace, world)
        going = run.settle()
        try:
            while going and world.runnable:
                if len(trace) == run.max_steps:
                    return None
                tid = self.random.choice(world.runnable)
                run.schedule.append(tid)
                going = world.step(tid) or not run.thread_failed()
                add(tid, world.taken)
            run.finish()
            return self.form_of(trace)
        finally:
            world.close()

    def reorder(self, taken: Taken) -> None:
        orders = 3  # of each execution that is looked at
        for n in range(orders + 1):
            # The first is the same order: is it the same execution at all?
            order = taken.order(self.random) if n else list(range(len(taken.steps)))
            if n and order == sorted(order):
                continue
            again = self.take(taken, order)
            if again is not None:
                raise Unseen(self.located(taken, order, again))

    def take(self, taken: Taken, order: list[int]) -> str | None:
        """What differs when the steps are taken in this order; None when nothing does."""
        run = self.again
        run.begin()
        world: Any = run.execution
        try:
            going = run.settle()
            for position in order:
                step = taken.steps[position]
                tid = world.tids.get(step.path, -1)
                thread = world.threads.get(tid)
                if not going or thread is None or not thread.runnable:
                    return f"{step.text}: cannot be taken"
                run.schedule.append(tid)
                going = world.step(tid) or not run.thread_failed()
                keys = world.objects.keys
                codes = frozenset((keys[code >> 1], code & 1) for code in world.taken.codes)
                if codes != step.codes:
                    places = sorted({readable(key) for key, _ in codes ^ step.codes})
                    return f"{step.text}: touches otherwise {', '.join(places[:3])}"
            run.finish()
            end = ending(run, world)
            if end != taken.end and not taken.partial:
                return f"the end: was {taken.end}, is {end}"
            return None
        finally:
            world.close()

    def located(self, taken: Taken, order: list[int], difference: str) -> str:
        """The two neighbours whose order matters, when there are such."""
        for n in range(len(taken.steps) - 1):
            one, other = taken.steps[n], taken.steps[n + 1]
            if taken.before[n + 1] >> n & 1:
                continue
            swapped = list(range(len(taken.steps)))
            swapped[n], swapped[n + 1] = n + 1, n
            found = self.take(taken, swapped)
            if found is not None:
                return (
                    f"{one.text} and {other.text} seem to share nothing, but in the other order "
                    f"{found}"
                )
        if order == sorted(order):
            return f"the same schedule again is another execution: {difference}"
        return f"in another order of independent steps {difference}"


class Taken:
    """An execution that is over."""

    def __init__(self, run: Run) -> None:
        world: Any = run.execution
        self.steps: list[Step] = []
        self.before: list[int] = []  # by step, the steps that happen before it
        self.end = ending(run, world)
        self.renewed = world.renewed
        self.partial = run.blocked or run.cut
        assert isinstance(world, World)
        keys = world.objects.keys
        writes: dict[int, int] = {}
        touches: dict[int, int] = {}
        last: dict[int, int] = {}
        for n, (thread, turn, where, parent) in enumerate(world.history):
            before = turn.must
            if thread.tid in last:
                before |= 1 << last[thread.tid]
            elif parent >= 0:
                before |= 1 << parent
            for code in turn.codes:
                number = code >> 1
                before |= touches.get(number, 0) if code & 1 else writes.get(number, 0)
            for code in turn.codes:
                number = code >> 1
                touches[number] = touches.get(number, 0) | 1 << n
                if code & 1:
                    writes[number] = writes.get(number, 0) | 1 << n
            last[thread.tid] = n
            self.before.append(before & ((1 << n) - 1))
            codes = frozenset((keys[code >> 1], code & 1) for code in turn.codes)
            self.steps.append(Step(thread.path, f"{thread.name} at {where}", codes))
        if world.fell:  # and so nobody took a step any more
            self.before[-1] = (1 << len(self.steps) - 1) - 1

    def order(self, random: Random) -> list[int]:
        """Another order of the same trace."""
        done = 0
        found = []
        left = list(range(len(self.steps)))
        while left:
            ready = [n for n in left if not self.before[n] & ~done]
            chosen = ready[random.getrandbits(24) * len(ready) >> 24]
            left.remove(chosen)
            found.append(chosen)
            done |= 1 << chosen
        return found


class Step:
    def __init__(self, path: tuple[int, ...], text: str, codes: frozenset[Any]) -> None:
        self.path = path
        self.text = text
        self.codes = codes


def ending(run: Run, world: Any) -> str:
    if run.error is not None:
        return run.message()
    return f"{type(world.outcome).__name__} {shown(world.outcome)}"


def shown(value: Any) -> str:
    """repr, when that is the same in every execution."""
    from vkemu.exploration.run import without_addresses

    try:
        return without_addresses(repr(value))
    except Exception:
        return ""
