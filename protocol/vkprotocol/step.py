"""Effects: the only things a kernel thread may await.

A kernel thread is a coroutine. At every *visible operation* it yields an `Effect` that announces
what it is about to do - which shared object, load or write, and under which guard - and the
executor resumes it (sending the `Thread`) when that operation may happen. Everything from there to
the next yield runs atomically. So the announced effect is the footprint of the step, known before
the step is taken; partial-order reduction needs no annotation.

Contract of a step, relied on by every executor:

* it changes only its effect's `obj` and the objects in `also`, besides the thread's own locals;
* a load that changes its object does so in a way that commutes, and the object has `commute`;
* it touches nothing else that another thread may touch without a lock;
* a guard is a pure function of `obj.state`, and a guarded object never appears in `also`.

Two steps are dependent iff they are of one thread, or share an object which one of them writes.
A failed compare-and-set is a write.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import update_wrapper
from inspect import CO_COROUTINE, CO_GENERATOR
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

Key: TypeAlias = tuple[Any, ...] | str
Guard: TypeAlias = Callable[[Any], bool]
Step: TypeAlias = Generator["Effect", "Thread", Any]
Body: TypeAlias = Coroutine["Effect", "Thread", Any]

if TYPE_CHECKING:
    # What the type checker knows the meaning of.
    from types import coroutine as coroutine  # noqa: PLC0414
else:

    def coroutine(function: FunctionType) -> FunctionType:
        """As types.coroutine, a generator that can be awaited; but a coroutine to the interpreter,
        so that one that is dropped without having run is warned of: a forgotten `await`."""
        code = function.__code__
        code = code.replace(co_flags=(code.co_flags & ~CO_GENERATOR) | CO_COROUTINE)
        names = function.__globals__, function.__name__
        made = FunctionType(code, *names, function.__defaults__, function.__closure__)
        made.__kwdefaults__ = function.__kwdefaults__
        return update_wrapper(made, function)


class Interrupted(BaseException):
    """Thrown into a thread in place of the step it has announced: by who cancels it, or by time.

    What it has left in the object of its effect, waiting, it takes back: that is its step then.
    """


class Shared:
    """A thing two threads may touch without a lock; the unit of dependence.

    `key` names it the same way in every execution that reaches it (use `fresh_key` for what is
    made while threads run). `state` is a plain value: what guards read and narrations print.
    """

    __slots__ = ("index", "key", "state", "waiters")

    def __init__(self, key: Key, state: Any = None) -> None:
        self.key = key
        self.state = state
        self.index = -1  # a small number for `key`, given by an explorer
        # Threads whose pending effect is guarded on this object; kept by the executor.
        self.waiters: list[Thread] | None = None
        if MADE[0] is not None:
            MADE[0](self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {key_text(self.key)}={look_at(self)!r}>"


def key_text(key: Key) -> str:
    """`("pte", 3, 0x500)` as `pte.3.1280`."""
    return key if isinstance(key, str) else ".".join(map(str, key))


Also: TypeAlias = tuple[tuple[Shared, bool], ...]


class Effect:
    """One visible operation, announced before it is executed. Preallocate: it is immutable.

    `deadline` (virtual ns, absolute) makes a guarded effect run, with its guard still false, once
    the clock has reached it. A subclass may compute `obj`, `write` and `also` from the state of
    the moment, provided every object that computation reads is among them.
    """

    __slots__ = ("also", "deadline", "guard", "obj", "op", "write")

    def __init__(
        self,
        obj: Shared,
        op: str,
        *,
        write: bool,
        guard: Guard | None = None,
        also: Also = (),
        deadline: int | None = None,
    ) -> None:
        self.obj = obj
        self.op = op
        self.write = write
        self.guard = guard
        self.also = also
        self.deadline = deadline

    def __repr__(self) -> str:
        return f"<{self.op} {key_text(self.obj.key)}>"


class Thread:
    """A kernel thread. `held` is the list of locks held in checking mode, else None."""

    __slots__ = (
        "born", "children", "coro", "daemon", "done", "error", "held", "name", "path", "pending",
        "runnable", "tid", "tokens",
    )  # fmt: skip

    def __init__(
        self, tid: int, name: str, coro: Body, path: tuple[int, ...] = (), *, daemon: bool = False
    ) -> None:
        self.tid = tid
        self.name = name
        self.path = path  # the spawn tree: parent's path and which of its children this is
        self.daemon = daemon  # an execution is over when only daemons are left, all blocked
        self.coro = coro
        self.pending: Effect | None = None
        self.runnable = False
        self.done = False
        self.error: BaseException | None = None
        self.held: list[Any] | None = None
        self.tokens: list[Any] = []  # lwkt tokens, which a sleeping thread loses
        self.born = 0  # objects named by fresh_key
        self.children = 0  # threads spawned
        if MADE[0] is not None:
            MADE[0](self)

    def __repr__(self) -> str:
        return f"<Thread {self.tid} {self.name} {self.pending!r}>"


# The thread being run, set by the executor before every step; None outside (set-up code).
CURTHREAD: Final[list[Thread | None]] = [None]
# Virtual nanoseconds, set by the executor.
CLOCK: Final[list[int]] = [0]
# Called with what is looked at through `.value`, without an effect; set by an explorer.
LOOK: Final[list[Callable[[Any], None] | None]] = [None]
# Called with every shared object and thread that is made, whoever makes it; set by an explorer.
MADE: Final[list[Callable[[Any], None] | None]] = [None]
_setup_keys: Final[list[int]] = [0]


def curthread() -> Thread:
    """The running kernel thread. Only valid inside one."""
    thread = CURTHREAD[0]
    assert thread is not None, "not in a kernel thread"
    return thread


def fresh_key(kind: str) -> Key:
    """A name for an object made now: (kind, creating thread's path, that thread's count).

    Equal in equivalent interleavings, which a global counter is not.
    """
    thread = CURTHREAD[0]
    if thread is None:
        _setup_keys[0] += 1
        return (kind, "setup", _setup_keys[0])
    thread.born += 1
    return (kind, *thread.path, thread.born)


def look_at(thing: Shared) -> Any:
    """Its state, for who is no thread: predicates, set-up code, the end of a test."""
    if LOOK[0] is not None:
        LOOK[0](thing)
    return thing.state


def reset_setup() -> None:
    """Start naming set-up objects anew; every executor calls this before it builds a program."""
    CURTHREAD[0] = None
    CLOCK[0] = 0
    _setup_keys[0] = 0


@coroutine
def perform(effect: Effect) -> Generator[Effect, Thread, Thread]:
    """Await one effect; what follows the await, up to the next, is its step."""
    return (yield effect)


def is_none(state: Any) -> bool:
    return state is None


def is_true(state: Any) -> bool:
    return bool(state)


@coroutine
def pause(duration_ns: int) -> Step:
    """Sleep for virtual time. Nobody else can wake the thread."""
    nobody = Shared(fresh_key("timer"))
    yield Effect(nobody, "pause", write=False, guard=is_true, deadline=CLOCK[0] + duration_ns)


class Spawn(Protocol):
    """What every executor offers: start a kernel thread; a run does not wait for a daemon."""

    def __call__(self, name: str, coro: Body, *, daemon: bool = False) -> Thread: ...
