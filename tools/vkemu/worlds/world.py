"""A world: an event loop that is driven one step of one task at a time.

It is an `Execution` like that of the kernels but for one thing: what a step touches is known only
after it was taken. So its threads (tasks, deadlines, calls in worker threads) announce a `Turn`,
which is filled in when it is over: what it touched, and which events it had to come after, whatever
they touch - a wakeup comes after what woke it. Who waits has no guard: it is not there, until it
is woken.
"""

from __future__ import annotations

from typing import Any, NoReturn

from vkprotocol.effects import Also, Effect, Shared, Thread

from vkemu.executors.controlled import Tids
from vkemu.executors.deadlock import Deadlock
from vkemu.exploration.reduction.footprint import Footprint, Objects, dependent
from vkemu.exploration.result import ExplorationError, Unseen
from vkemu.exploration.stepwise import Seen, Stepwise
from vkemu.worlds.network import Network
from vkemu.worlds.noting import LOG, readable, touch
from vkemu.worlds.waiting import calling
from vkemu.worlds.workers import Worker

Might = tuple[int, int, Footprint, int]  # event, thread, footprint, past: it could have come before


class Turn(Effect):
    """A step of a thread of a world. `codes` and `must` are of use once it was taken."""

    __slots__ = ("codes", "must", "objects", "renewed", "taken")

    def __init__(self, shared: Shared, op: str, objects: Objects) -> None:
        self.obj = shared
        self.op = op
        self.write = True
        self.guard = None
        self.deadline = None
        self.codes: Footprint = ()
        self.must = 0
        self.taken = False
        self.renewed = 0
        self.objects = objects

    @property
    def also(self) -> Also:  # type: ignore[override]
        """What it touched; before it was taken, what the same step touched the last time."""
        return tuple((place_of(self.objects, code >> 1), bool(code & 1)) for code in self.codes)


_places: dict[int, dict[int, Shared]] = {}


def place_of(objects: Objects, number: int) -> Shared:
    """The object of a number, as something that has an identity."""
    places = _places.setdefault(id(objects), {})
    shared = places.get(number)
    if shared is None or shared.key is not objects.keys[number]:
        shared = places[number] = Shared(objects.keys[number])
        shared.index = number
    return shared


class Unsupported(ExplorationError):
    """The program asks for what a world does not have. One line says what, and where."""


class World(Stepwise):
    """What trio's and asyncio's have in common. `late`: footprints are known after the step."""

    late = True

    def __init__(
        self,
        main: Any,
        tids: Tids,
        objects: Objects,
        memo: dict[tuple[int, int], Footprint],
        *,
        time: str = "idle",
        cancel: str = "",
        network: tuple[str, ...] = (),
    ) -> None:
        super().__init__(tids)
        self.main = main
        self.time = time
        self.cancel = cancel
        self.objects = objects
        self.memo = memo  # by thread and which of its steps: what it touched the last time
        self.tracking = True
        self.at = -1  # the event under way
        self.acting: Thread | None = None
        self.taken: Turn | None = None  # the last
        self.births: list[tuple[int, int]] = []  # thread and event, of the last step
        self.might: list[Might] = []
        self.must: dict[int, int] = {}  # by thread: events that its next step comes after
        self.counts: dict[int, int] = {}  # by thread: steps taken
        self.position = 0
        self.workers: dict[int, Worker] = {}  # by thread: calls in threads of their own
        self.network = Network(self, network)
        self.refused = ""
        self.outcome: Any = None
        self.ended = False
        self.fell = False  # in a step: it failed
        self.anew = False  # the program was rewritten for this execution
        self.renewed = 0  # how often the program was rewritten before this execution
        self.teller: Any = None
        self.history: list[tuple[Thread, Turn, str, int]] = []
        self.births_of: dict[int, int] = {}  # by thread: the event that brought it about
        self.of_task: dict[Any, Thread] = {}
        self.task_of: dict[int, Any] = {}
        self.timers: dict[Any, Thread] = {}  # by handle, or by scope with a deadline
        self.registered: dict[Any, int] = {}  # by the same: the event that set its deadline
        # Deadlines that are no more: since which event, and which had set them.
        self.gone: list[tuple[float, int, int]] = []
        # Who could have passed before an event, once these others had, which were earlier.
        self.later: list[tuple[Might, set[Any]]] = []
        self.barrier = 0
        self.cancels: dict[int, Any] = {}  # by thread: the task or scope it cancels

    # -- threads -----------------------------------------------------------------------------------

    def born(self, name: str, coro: Any = None, parent: Thread | None = None) -> Thread:
        """A thread of the world that `parent`, or who is acting, brings about."""
        parent = parent or self.acting
        if parent is None:
            path: tuple[int, ...] = (self.roots,)
            self.roots += 1
        else:
            path = (*parent.path, parent.children)
            parent.children += 1
        tid = self.tids.setdefault(path, len(self.tids))
        thread = Thread(tid, name, coro, path)
        self.threads[tid] = thread
        self.births.append((tid, self.at))
        self.births_of[tid] = self.at
        thread.pending = self.turn(thread)
        return thread

    def turn(self, thread: Thread) -> Turn:
        turn = Turn(Shared(("turn", thread.path)), "step", self.objects)
        turn.codes = self.memo.get((thread.tid, self.counts.get(thread.tid, 0)), ())
        return turn

    def over(self, thread: Thread, error: BaseException | None = None) -> None:
        """It has no more steps."""
        thread.done = True
        thread.pending = None
        thread.error = error

    def wake(self, tid: int) -> None:
        """The next step of a thread comes after the one under way."""
        if self.at >= 0:
            self.must[tid] = self.must.get(tid, 0) | 1 << self.at

    def could_have_passed(self, might: Might, earlier: set[Any]) -> None:
        """Before an event, once these others had."""
        if earlier:
            self.later.append((might, earlier))
        else:
            self.might.append(might)

    def is_gone(self, timer: Any, when: float) -> None:
        """A deadline passed, or is withdrawn, in this step."""
        self.gone.append((when, 1 << self.at, self.registered[timer]))
        later, self.later = self.later, []
        for (first, tid, codes, past), earlier in later:
            if timer in earlier:
                earlier.remove(timer)
                past |= 1 << self.at
            self.could_have_passed((first, tid, codes, past), earlier)

    def refuse(self, what: str) -> NoReturn:
        where = calling()
        if where == "?" and self.acting is not None:  # a thread: where is who called it?
            above = self.tids.get(self.acting.path[:-1], -1)
            where = self.where(self.threads[above]) if above in self.threads else where
        self.refused = f"the program {what}, which is not in this world, at {where}"
        raise RuntimeError(what)

    # -- steps -------------------------------------------------------------------------------------

    def enabled(self) -> list[int]:
        """Who can take a step now, sorted."""
        raise NotImplementedError

    def under_way(self) -> list[int]:
        """Who can when main is over, sorted: it could have come before what there was."""
        return sorted(self.network.under_way())

    def act(self, thread: Thread) -> int:
        """The step of a thread. The events it has to come after, besides those that woke it."""
        raise NotImplementedError

    def place(self, thread: Thread) -> tuple[str, int]:
        """Where a thread stands: file and line of the program's own code."""
        return ("?", 0)

    def where(self, thread: Thread) -> str:
        file, line = self.place(thread)
        return f"{file.rpartition('/')[2]}:{line}"

    def settle(self) -> None:
        self.deferred = False
        self.look_around()

    def look_around(self) -> None:
        who = self.under_way if self.ended else self.enabled
        runnable = who() if self.failed is None else []
        threads = self.threads
        for tid in self.runnable:
            threads[tid].runnable = False
        for tid in runnable:
            threads[tid].runnable = True
        self.runnable[:] = runnable
        self.left = self.alive = 0 if self.ended else 1

    def step(self, tid: int) -> bool:
        thread = self.threads[tid]
        turn = thread.pending
        assert isinstance(turn, Turn)
        seen = self.seen
        where = self.place(thread) if seen is not None else ("", 0)
        self.take(thread, turn)
        if seen is not None:
            also = tuple((self.objects.keys[code >> 1], bool(code & 1)) for code in turn.codes)
            named = thread.path, thread.name, turn.op, turn.obj.key
            seen.append(Seen(*named, True, False, also, where, None, len(self.threads)))
        if not self.deferred:
            self.look_around()
        return self.failed is None

    def take(self, thread: Thread, turn: Turn) -> None:
        count = self.counts.get(thread.tid, 0)
        self.counts[thread.tid] = count + 1
        where = self.where(thread) if self.seen is not None or self.teller is not None else ""
        self.history.append((thread, turn, where, self.births_of[thread.tid]))
        self.at = self.position
        self.births.clear()
        self.network.news = ""
        LOG.begin(thread.path, count)
        self.acting = thread
        must = self.must.pop(thread.tid, 0)
        turn.must = must | self.act(thread)
        for tid, worker in self.workers.items():
            if worker.until is not None and worker.until():
                self.wake(tid)
                worker.until = None
        self.acting = None
        self.at = -1
        self.position += 1
        turn.codes = LOG.footprint(self.objects) if self.tracking else ()
        turn.taken = True
        turn.renewed = self.renewed
        self.taken = turn
        self.memo[thread.tid, count] = turn.codes
        if not thread.done and thread.pending is turn:
            thread.pending = self.turn(thread)

    def replay(self, schedule: list[int], effects: list[Effect], start: int, stop: int) -> int:
        for position in range(start, stop):
            was = effects[position]
            thread = self.threads.get(schedule[position])
            if thread is None or thread.pending is None:
                raise Unseen(f"step {position} can no longer be taken, after the same steps before")
            assert isinstance(was, Turn)
            self.step(thread.tid)
            now = self.taken
            assert now is not None
            if was.renewed != now.renewed:
                continue
            if now.codes != was.codes or now.must != was.must:
                raise Unseen(self.difference(position, thread, was, now))
        return stop

    def difference(self, position: int, thread: Thread, was: Turn, now: Turn) -> str:
        keys = self.objects.keys
        changed = sorted({code >> 1 for code in set(was.codes) ^ set(now.codes)})
        places = ", ".join(readable(keys[number]) for number in changed[:3]) or "what woke it"
        return (
            f"step {position}, by {thread.name} (now at {self.where(thread)}), is not what "
            f"it was after the same steps: it differs in {places}"
        )

    def effect_of(self, tid: int) -> Effect | None:
        return self.taken

    def advance(self) -> bool:
        return False

    def form(self) -> frozenset[tuple[Any, ...]]:
        """The Mazurkiewicz trace of this execution: of every step, how many of each thread are
        before it; of one that failed only of those before its end. For those who count traces."""
        clocks: list[dict[int, int]] = []
        last: dict[int, int] = {}
        touched: dict[int, list[int]] = {}
        written: dict[int, list[int]] = {}
        found = []
        for n, (thread, turn, _, parent) in enumerate(self.history):
            tid = thread.tid
            before = [m for m in range(n) if turn.must >> m & 1]
            before.append(last.get(tid, parent))
            for code in turn.codes:
                before += (touched if code & 1 else written).get(code >> 1, [])
            clock: dict[int, int] = {}
            for other in before:
                if other >= 0:
                    for who, count in clocks[other].items():
                        clock[who] = max(clock.get(who, 0), count)
            clock[tid] = clock.get(tid, 0) + 1
            for code in turn.codes:
                touched.setdefault(code >> 1, []).append(n)
                if code & 1:
                    written.setdefault(code >> 1, []).append(n)
            clocks.append(clock)
            last[tid] = n
            found.append((tid, clock[tid], tuple(sorted(clock.items()))))
        end = clocks[-1] if self.fell else None
        return frozenset(each for each in found if end is None or each[1] <= end.get(each[0], 0))

    # -- words -------------------------------------------------------------------------------------

    def tell(self) -> None:
        """Write down what the next step does."""
        if self.teller is None:
            from vkemu.worlds.telling import Teller

            self.teller = Teller()
            LOG.told = self.teller.told
        self.teller.begin()

    def said(self) -> tuple[str, str, str]:
        """Of the step just taken: the operation, on what, and more of it."""
        assert self.taken is not None
        thread, _, where, _ = self.history[-1]
        if self.network.news:
            return "step", self.network.news, ""
        end = "ends" if thread.done else f"to {self.where(thread)}"
        return "step", f"from {where}" if where != "?:0" else "", end

    def words(self) -> list[str]:
        """Of every step that was told: the shared places."""
        assert self.teller is not None
        said: list[str] = self.teller.words([thread.tid for thread, *_ in self.history])
        return said

    def stale(self) -> bool:
        """Whether more is known now than when it began: nothing of it is of use."""
        return LOG.stale or self.anew

    def stuck(self) -> str:
        """Who waits for whom."""
        raise NotImplementedError

    def deadlock(self) -> Deadlock | None:
        return None if self.ended else Deadlock(f"deadlock: {self.stuck()}")

    def close(self) -> None:
        LOG.told = None

    def fail(self, thread: Thread, error: BaseException) -> None:
        """Nobody goes on. Who could have, could have before this step, and before those that it
        depends on."""
        thread.error = error
        self.failed = thread
        self.fell = True
        if not self.tracking:
            return
        touch(self.network, "failed", write=True)
        unknown = (2 * self.objects.number_of((LOG.name(self.network), "failed")) + 1,)
        for tid in self.runnable:
            turn: Any = self.threads[tid].pending
            if turn is None or self.threads[tid] is self.acting:
                continue
            codes = turn.codes or unknown
            past = self.past_of_next(tid)
            for n, (_, other, *_) in enumerate(self.history):
                if n == self.at or dependent(codes, other.codes):
                    self.might.append((n, tid, codes, past))

    def past_of_next(self, tid: int) -> int:
        """The events that the next step of a thread that can run comes after."""
        past = self.must.get(tid, 0)
        if tid in self.network.posted:
            past |= self.network.posted[tid][0][0]
        for n, (thread, *_) in enumerate(self.history):
            if thread.tid == tid:
                past |= 1 << n
        return past


def leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
