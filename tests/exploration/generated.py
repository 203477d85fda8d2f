"""Small generated programs, and what is true of them by definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st
from vkemu.exploration.program import Program
from vkemu.exploration.run import Run
from vkprotocol.effects import CURTHREAD, Thread, WaitChannel, pause

from vkhost.kern.token import Token

Op = tuple[Any, ...]


class Source(NamedTuple):
    """A program as text: what its root threads do. A child is a list of operations too."""

    threads: tuple[tuple[Op, ...], ...]


CELLS = ("x", "y")
SIMPLE = st.one_of(
    st.tuples(st.just("load"), st.sampled_from(CELLS)),
    st.tuples(st.just("store"), st.sampled_from(CELLS), st.integers(1, 2)),
    st.tuples(st.just("put_seen"), st.sampled_from(CELLS)),
    st.tuples(st.just("add"), st.sampled_from(CELLS)),
    st.tuples(st.just("cmpset"), st.sampled_from(CELLS), st.integers(0, 1)),
    st.tuples(st.just("store_if"), st.sampled_from(CELLS)),
    st.tuples(st.just("await"), st.sampled_from(CELLS), st.integers(0, 2)),
    st.tuples(st.just("fail_if"), st.integers(1, 2)),
)
BLOCKING = st.one_of(
    st.tuples(st.just("acquire"), st.sampled_from(("l", "m"))),
    st.tuples(st.just("release"), st.sampled_from(("l", "m"))),
    st.tuples(st.just("try_acquire"), st.sampled_from(("l", "m"))),
    st.tuples(st.sampled_from(("down", "up", "try_down"))),
    st.tuples(st.sampled_from(("set", "clear", "wait"))),
    st.tuples(st.sampled_from(("shared", "exclusive", "unlock"))),
    st.tuples(st.sampled_from(("gettoken", "gettoken_shared", "reltoken"))),
    st.tuples(st.sampled_from(("gettoken", "gettoken_shared", "reltoken"))),
    st.tuples(st.sampled_from(("put", "get", "try_put", "try_get"))),
    st.tuples(st.sampled_from(("cwait", "notify", "notify_all"))),
    st.tuples(st.just("nap"), st.integers(1, 2)),
    st.tuples(st.just("doze"), st.integers(1, 2)),
    st.tuples(st.just("wake")),
)
CHILD = st.tuples(st.just("spawn"), st.lists(SIMPLE | BLOCKING, min_size=1, max_size=2))
ANY = SIMPLE | BLOCKING | SIMPLE
# Locks that are shared, and nothing else: what their loads do to the reductions is subtle.
SHARING = st.one_of(
    st.tuples(st.sampled_from(("gettoken", "gettoken_shared", "gettoken_shared", "reltoken"))),
    st.tuples(st.sampled_from(("shared", "exclusive", "unlock"))),
    st.tuples(st.just("reltoken")),
)


@st.composite
def sources(draw: st.DrawFn, ops: st.SearchStrategy[Op] = ANY) -> Source:
    bodies = draw(st.lists(st.lists(ops, min_size=1, max_size=4), min_size=2, max_size=4))
    if ops is ANY and draw(st.integers(0, 3)) == 0:
        body = bodies[draw(st.integers(0, len(bodies) - 1))]
        body.insert(draw(st.integers(0, len(body))), draw(CHILD))
    # At most nine operations in all, so that dfs comes to an end.
    left = 9
    kept = []
    for body in bodies:
        kept.append(tuple(body[:left]))
        left -= len(kept[-1])
    return Source(tuple(body for body in kept if body))


class Built:
    """The objects of one build, and what every thread saw."""

    def __init__(self, k: Any, source: Source) -> None:
        self.k = k
        self.cells = {name: k.cell(name, 0) for name in CELLS}
        self.locks = {name: k.lock(name) for name in ("l", "m")}
        self.semaphore = k.semaphore("s", 1)
        self.event = k.event("e")
        self.rwlock = k.rwlock("rw")
        self.queue = k.queue("q", 1)
        self.guard = k.lock("g")
        self.condition = k.condition("c", self.guard)
        self.cell = k.cell("sleepers", 0)
        self.seen: dict[tuple[int, ...], list[Any]] = {}
        self.held: dict[tuple[int, ...], list[str]] = {}  # locks, by thread
        self.channel = WaitChannel("w")
        self.token = Token("t")
        for n, body in enumerate(source.threads):
            k.spawn(f"t{n}", self.thread, body)

    def final(self) -> tuple[Any, ...]:
        """Everything an execution can end with."""
        shared = [
            *self.cells.values(), *self.locks.values(), self.semaphore, self.event, self.rwlock,
            self.queue, self.guard, self.condition.channel, self.channel, self.token,
        ]  # fmt: skip
        values = tuple((thing.key, thing.state) for thing in shared)
        seen = tuple((path, tuple(log)) for path, log in sorted(self.seen.items()))
        stuck = tuple(
            (path, thread.pending.op)
            for path, thread in sorted((t.path, t) for t in self.k.execution.threads.values())
            if thread.pending is not None
        )
        return values, seen, stuck

    async def thread(self, body: tuple[Op, ...]) -> None:
        me = CURTHREAD[0]
        assert me is not None
        log = self.seen[me.path] = []
        self.held[me.path] = []
        for op, *args in body:
            await self.step(me, log, op, args)

    async def step(self, me: Thread, log: list[Any], op: str, args: list[Any]) -> None:
        cells = self.cells
        last = log[-1] if log else 0
        match op:
            case "load":
                log.append(await cells[args[0]].load())
            case "store":
                await cells[args[0]].store(args[1])
            case "put_seen":
                await cells[args[0]].store(last)
            case "add":
                log.append(await cells[args[0]].add(1))
            case "cmpset":
                log.append(await cells[args[0]].cmpset(args[1], 2))
            case "store_if":
                if last:
                    await cells[args[0]].store(1)
            case "await":
                least = args[1]
                await cells[args[0]].wait(lambda value: value >= least)
            case "fail_if":
                assert last != args[0], "seen"
            case "acquire":
                await self.locks[args[0]].acquire()
                self.held[me.path].append(args[0])
            case "release":
                if args[0] in self.held[me.path]:
                    self.held[me.path].remove(args[0])
                    await self.locks[args[0]].release()
            case "try_acquire":
                log.append(await self.locks[args[0]].try_acquire())
                self.held[me.path] += args[:1] * log[-1]
            case "nap":
                await pause(args[0])
            case "doze":
                await self.channel.enqueue()
                log.append(await self.channel.sleep(args[0]))
            case "wake":
                await self.channel.wakeup()
            case "spawn":
                self.k.spawn("child", self.thread, tuple(args[0]))
            case _:
                await self.block(me, log, op)

    async def block(self, me: Thread, log: list[Any], op: str) -> None:
        match op:
            case "down":
                await self.semaphore.acquire()
            case "up":
                await self.semaphore.release()
            case "try_down":
                log.append(await self.semaphore.try_acquire())
            case "set":
                await self.event.set()
            case "clear":
                await self.event.clear()
            case "wait":
                await self.event.wait()
            case "shared":
                await self.rwlock.acquire_shared()
                self.held[me.path].append("rw")
            case "exclusive":
                await self.rwlock.acquire_exclusive()
                self.held[me.path].append("rw")
            case "unlock":
                if "rw" in self.held[me.path]:
                    self.held[me.path].remove("rw")
                    await self.rwlock.release()
            case "gettoken":
                await self.token.acquire()
            case "gettoken_shared":
                await self.token.acquire_shared()
            case "reltoken":
                if me.tokens:
                    await self.token.release()
            case "put":
                await self.queue.put(me.path)
            case "get":
                log.append(await self.queue.get())
            case "try_put":
                log.append(await self.queue.try_put(me.path))
            case "try_get":
                log.append(await self.queue.try_get())
            case "cwait":
                async with self.guard:
                    await self.condition.wait()
            case "notify":
                async with self.guard:
                    await self.condition.notify()
            case "notify_all":
                async with self.guard:
                    await self.condition.notify_all()
            case _:
                raise AssertionError(op)


Path = tuple[int, ...]


def paths_of(run: Run) -> list[Path]:
    """The schedule of an execution, its threads named by where they come from: which number one has
    depends on the executions before."""
    threads = run.execution.threads
    return [threads[tid].path for tid in run.schedule]


def take(run: Run, schedule: list[Path]) -> None:
    run.begin()
    run.settle()
    for path in schedule:
        if not run.execution.runnable:
            assert run.execution.advance()
        if not run.execution.step(run.execution.tids[path]):
            run.thread_failed()
    run.finish()


def class_of(build: Callable[[Any], object], schedule: list[Path]) -> tuple[Any, ...]:
    """The Mazurkiewicz trace of a schedule, by definition: its events with all their pasts.

    Written anew, with sets and names, and shares nothing with the explorer's bitsets.
    """
    return trace_of(Run(Program(build, {}), 0, stop_on_failure=False), schedule)


def trace_of(run: Run, schedule: list[Path]) -> tuple[Any, ...]:
    """The same, with a run that is kept for the next schedule of the program."""
    take(run, schedule)  # and so find out who is cancelled, which is part of what a step touches
    run.begin()
    run.settle()
    execution = run.execution
    events: list[tuple[Path, dict[Any, bool], frozenset[Any]]] = []
    births: dict[Path, frozenset[Any]] = {}
    counts: dict[Path, int] = {}
    barrier: frozenset[Any] = frozenset()
    done: list[Any] = []
    for path in schedule:
        if not execution.runnable:
            assert execution.advance()
            barrier = frozenset(done)
        tid = execution.tids[path]
        effect = execution.threads[tid].pending
        assert effect is not None
        touched = {effect.obj.key: effect.write}
        for shared, write in effect.also:
            touched[shared.key] = write or touched.get(shared.key, False)
        past = set(births.get(path, frozenset()) | barrier)
        for n, (other, objects, before) in enumerate(events):
            if other == path or any(
                objects[key] or write for key, write in touched.items() if key in objects
            ):
                past |= {done[n], *before}
        name = (path, counts.get(path, 0), effect.op, effect.obj.key)
        counts[path] = counts.get(path, 0) + 1
        events.append((path, touched, frozenset(past)))
        done.append(name)

        def born(child: Thread, mine: frozenset[Any] = frozenset({name, *past})) -> None:
            births[child.path] = mine

        execution.on_spawn = born
        if not execution.step(tid):
            run.thread_failed()
    run.finish()
    return tuple(
        sorted(
            ((done[n], tuple(sorted(past, key=repr))) for n, (_, _, past) in enumerate(events)),
            key=repr,
        )
    )
