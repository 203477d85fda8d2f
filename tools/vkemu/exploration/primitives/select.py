"""A select: of several operations the first that can go on, or any of those that can.

Which one is a choice that the scheduler makes: a thread for each of the operations stands ready to
take its step, as if it were the one that selects, and the first that does takes the others' chance.
What the others have announced is never done.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vkprotocol.effects import (
    CURTHREAD,
    Effect,
    Guard,
    Interrupted,
    Key,
    Shared,
    Step,
    Thread,
    coroutine,
    curthread,
    fresh_key,
    is_none,
    key_text,
    look_at,
)

from vkemu.exploration.own import SELECT
from vkemu.exploration.primitives.together import All, Together


class Wanting(Effect):
    """A step that waits in a second one when it finds nothing; `ready`: it does not have to."""

    __slots__ = ("item", "ready")

    def __init__(self, obj: Shared, op: str, ready: Guard, item: Any = None) -> None:
        super().__init__(obj, op, write=True)
        self.ready = ready
        self.item = item  # what it would give


class Lost(Effect):
    """The effect of a branch with a deadline, which no longer counts: another was taken."""

    __slots__ = ("was",)

    def __init__(self, was: Effect) -> None:
        super().__init__(was.obj, was.op, write=True, guard=was.guard, also=was.also)
        self.was = was


class Taken(NamedTuple):
    """The branch that was taken, and how it ended. No branch: the thread was interrupted."""

    number: int
    value: Any = None
    error: Exception | None = None


class Meeting(NamedTuple):
    """A branch over a channel with no room: it may have to meet the branch of another select."""

    selection: Selection
    number: int
    effect: Wanting

    def __repr__(self) -> str:
        return f"{self.effect.op} of {key_text(self.selection.key)}"


class Selection(Shared):
    """Of one select; `state` is None, then `Taken`."""

    __slots__ = ("_wait", "names", "threads")

    def __init__(self, key: Key) -> None:
        super().__init__(key, None)
        self.names: list[str] = []
        self.threads: list[Thread] = []  # by number of the branch
        # It may be interrupted, and then nobody takes a branch any more.
        self._wait = Effect(self, "select", write=True, guard=is_taken)

    def said(self) -> str:
        """What would do; for messages."""
        return " or ".join(self.names) if look_at(self) is None else "taken"

    @coroutine
    def wait(self) -> Step:
        yield self._wait
        return self.state


def is_taken(state: Any) -> bool:
    return state is not None


async def select(k: Any, operations: tuple[Any, ...]) -> tuple[int, Any]:
    """See `Making.select`."""
    started: list[tuple[Any, Effect]] = []
    selection = Selection(fresh_key(SELECT))
    try:
        for number, operation in enumerate(operations):
            started.append((operation, first_of(number, operation)))
        me = curthread()
        for number, (operation, effect) in enumerate(started):
            name = f"{effect.op} {key_text(effect.obj.key)}"
            selection.names.append(name)
            body = branch(k.execution, selection, me, number, operation, effect)
            selection.threads.append(k.spawn(f"{me.name}: {name}", body, daemon=True))
        meetings = [
            Meeting(selection, number, effect)
            for number, (_, effect) in enumerate(started)
            if isinstance(effect, Wanting) and getattr(effect.obj, "meets", False)
        ]
        try:
            if meetings:
                await meet(k, me, meetings)
            taken = await selection.wait()
        except Interrupted:
            if selection.state is None:
                take(k.execution, selection, Taken(-1))
            raise
    finally:
        for operation in operations:
            getattr(operation, "close", int)()  # does nothing to the one that came to its end
    if taken.error is not None:
        raise taken.error
    return taken.number, taken.value


def first_of(number: int, operation: Any) -> Effect:
    """What it announces first."""
    if not hasattr(operation, "send"):
        raise TypeError(
            f"select: branch {number} is {operation!r}, expected an operation, as queue.get()"
        )
    try:
        effect = operation.send(None)
    except StopIteration:
        raise TypeError(f"select: branch {number} takes no step, expected an operation") from None
    if not isinstance(effect, Effect):
        raise TypeError(f"select: branch {number} awaits {effect!r}, expected an effect")
    return effect


@coroutine
def meet(k: Any, me: Thread, mine: list[Meeting]) -> Step:
    """A step: from now on each of `mine` can meet the branches of others, and they it."""
    channels = tuple(dict.fromkeys(meeting.effect.obj for meeting in mine))
    also = tuple((channel, True) for channel in (*channels, mine[0].selection))
    together = Together(tuple(shared for shared, _ in also))
    yield Effect(together, "offer", write=True, also=also)
    for meeting in mine:
        channel: Any = meeting.effect.obj
        for other in channel.state.selects:
            if other.effect.op != meeting.effect.op and other.selection is not meeting.selection:
                body = transfer(k.execution, meeting, other)
                k.spawn(f"{me.name}: meet {key_text(channel.key)}", body, daemon=True)
        channel.state = channel.state._replace(selects=(*channel.state.selects, meeting))


@coroutine
def transfer(execution: Any, one: Meeting, other: Meeting) -> Step:
    """A thread: the two branches are taken, in one step."""
    parts = (one.effect.obj, one.selection, other.selection)
    also = tuple((part, True) for part in parts)
    guard = All((None, is_none, is_none))
    yield Effect(Together(parts), "meet", write=True, guard=guard, also=also)
    take(execution, one.selection, Taken(one.number, other.effect.item))
    take(execution, other.selection, Taken(other.number, one.effect.item))


def take(execution: Any, selection: Selection, taken: Taken) -> None:
    """The others have lost: time need not pass for them."""
    selection.state = taken
    for number, thread in enumerate(selection.threads):
        effect = thread.pending
        if number != taken.number and effect is not None and effect.deadline is not None:
            execution.divert(thread, Lost(effect))


@coroutine
def branch(
    execution: Any,
    selection: Selection,
    owner: Thread,
    number: int,
    operation: Any,
    effect: Effect,
) -> Step:
    """A thread: `operation` for `owner`, when it is the first."""
    parts = ((effect.obj, effect.write), *effect.also, (selection, True))
    ready = getattr(effect, "ready", effect.guard)
    guards = (ready, *(None for _ in effect.also), is_none)
    yield Effect(
        Together(tuple(part for part, _ in parts)), effect.op, write=True, guard=All(guards),
        also=parts, deadline=effect.deadline,
    )  # fmt: skip
    me = CURTHREAD[0]
    CURTHREAD[0] = owner
    try:
        more = operation.send(owner)
    except StopIteration as end:
        taken = Taken(number, end.value)
    except Exception as error:
        taken = Taken(number, None, error)
    else:
        what = f"{effect.op} {key_text(effect.obj.key)} goes on to {more.op}"
        taken = Taken(number, None, TypeError(f"select: {what}, expected an operation of one step"))
    finally:
        CURTHREAD[0] = me
    take(execution, selection, taken)
