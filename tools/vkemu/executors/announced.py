"""What a thread has announced: whether it may go on, whether it is the same, and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vkprotocol.effects import CLOCK, Effect, Shared, Thread, key_text


def may_go_on(effect: Effect, state: object) -> bool:
    """Whether a guarded effect could run with its object in `state`.

    Also when the guard raises: the thread then goes on, and fails in its own step.
    """
    assert effect.guard is not None
    if effect.deadline is not None and effect.deadline <= CLOCK[0]:
        return True
    try:
        return bool(effect.guard(state))
    except Exception:
        return True


def same_effect(one: Effect | None, other: Effect) -> bool:
    """Whether two effects, of two executions, announce the same operation."""
    return (
        one is not None
        and one.op == other.op
        and one.write == other.write
        and one.obj.key == other.obj.key
    )


def no_effect(awaited: object) -> TypeError:
    """What a thread awaits that belongs to an event loop, or to nobody."""
    return TypeError(f"awaits {shown(awaited)}, expected an effect of a shared object")


def blocked_on(thread: Thread, threads: Mapping[int, Thread]) -> str:
    """`b waits to acquire l (held by a)` for messages. `threads`: all there are, by tid."""
    effect = thread.pending
    if effect is None:
        return f"{thread.name} is done"
    what = f"{effect.op} {key_text(effect.obj.key)}"
    return f"{thread.name} waits to {what} ({standing(effect.obj, threads)})"


def standing(shared: Shared, threads: Mapping[int, Thread]) -> str:
    """Who holds a lock, who sleeps on a channel; of what is neither, how it is."""
    for said, whose in (("held by", "holders"), ("asleep:", "sleepers")):
        names = names_of(getattr(shared, whose, tuple)(), threads)
        if names:
            return f"{said} {', '.join(names)}"
    told = getattr(shared, "said", None)
    return f"now {shown(shared.state)}" if told is None else str(told())


def names_of(tids: Iterable[int], threads: Mapping[int, Thread]) -> list[str]:
    found = [threads[tid] for tid in tids if tid in threads]
    return [f"{thread.name}, which is done" if thread.done else thread.name for thread in found]


def shown(value: object) -> str:
    """repr, where there is one: not of a number of too many digits, of what is too deep, or of
    what cannot say it."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
