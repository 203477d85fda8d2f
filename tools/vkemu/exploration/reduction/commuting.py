"""Loads that change their object, in whatever order: taking and dropping a lock shared.

They do not depend on each other, so the order in which the trace has them says little; but a write
that waits for the object - exclusive, with a guard - depends on all of them, and may have to come
before several at once. Such an object has `commute(state, tid, op)`, its state after one more load.
What a thread's loads do to the guard is supposed not to depend on the other threads' loads: a lock
is free when nobody holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vkprotocol.effects import Effect

from vkemu.executors.announced import may_go_on

if TYPE_CHECKING:
    from vkemu.exploration.reduction.trace import Trace


def opening(trace: Trace, effect: Effect, first: int, past: int, n: int) -> tuple[int, ...] | None:
    """What has to wait, besides load `first`, for `effect` at `n` to come before `first`.

    None when it cannot: what is before `first`, or in `past`, is as it is. Otherwise of every
    thread as many loads are kept as leave the guard true; what happens after one that is not
    kept, is not kept either.
    """
    loads, state = segment(trace, effect, first, n)
    fixed = past | ((1 << first) - 1)
    without = [first]
    settled = False
    while not settled:
        settled = True
        kept = [load for load in loads if not after_any(trace, load, without)]
        if len(loads) - len(kept) and any(fixed >> load & 1 for load in loads if load not in kept):
            return None
        for tid in dict.fromkeys(trace.tids[load] for load in kept):
            own = [load for load in kept if trace.tids[load] == tid]
            while own and not may_go_on(effect, after(trace, effect, state, own)):
                last = own.pop()
                if fixed >> last & 1:
                    return None
                without.append(last)
                settled = False
    if not may_go_on(effect, after(trace, effect, state, kept)):
        return None
    return tuple(without[1:])


def segment(trace: Trace, effect: Effect, first: int, n: int) -> tuple[list[int], Any]:
    """The loads between the same two writes as `first`, and the state that the earlier one left."""
    number = effect.obj.index
    writers = trace.rivals[2 * number] & ((1 << n) - 1)
    touching = trace.rivals[2 * number + 1]
    below = (1 << first) - 1
    start = (writers & below).bit_length()
    above = writers & ~below
    stop = (above & -above).bit_length() - 1 if above else n
    loads = [event for event in range(start, stop) if touching >> event & 1]
    return loads, trace.befores[loads[0]]


def after(trace: Trace, effect: Effect, state: Any, loads: list[int]) -> Any:
    """`state`, and these loads."""
    commute = effect.obj.commute  # type: ignore[attr-defined]
    for load in loads:
        state = commute(state, trace.tids[load], trace.effects[load].op)
    return state


def after_any(trace: Trace, event: int, others: list[int]) -> bool:
    """Whether `event` is one of `others`, or happens after one."""
    clock = trace.clocks[event]
    return any(clock >> other & 1 for other in others)
