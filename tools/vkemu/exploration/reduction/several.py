"""Steps that wait for several objects at once, each with a condition of its own: see `Together`.

Such a step could have come earlier as far as each of its conditions lets it; and where it never
came, since another of its kind took its chance, it may have to come before that one, without what
has closed another condition since.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from vkprotocol.effects import CLOCK, Effect, Guard, Shared

from vkemu.exploration.primitives.select import Lost
from vkemu.exploration.primitives.together import Together
from vkemu.exploration.reduction.footprint import Footprint, Objects, Race

OPEN: Final = -1
NOTHING: Final = -2


class Trace(Protocol):
    """What is asked of it here."""

    objects: Objects
    tids: Any
    clocks: list[int]
    rivals: list[int]
    races: list[Race]

    def before(self, event: int, shared: Shared) -> object: ...


class Condition(NamedTuple):
    shared: Shared
    touching: bool  # loads change the object too, in any order: each may have closed it
    code: int
    guard: Guard
    due: bool  # its time has come, whatever the state is

    def holds(self, state: object) -> bool:
        try:
            return self.due or bool(self.guard(state))
        except Exception:  # the thread goes on, to fail
            return True


def conditions_of(trace: Trace, effect: Effect) -> list[Condition]:
    was = effect.was if type(effect) is Lost else effect
    due = was.deadline is not None and was.deadline <= CLOCK[0]
    found: list[Condition] = []
    every: Any = effect.guard
    parts: Any = [(effect.obj, every)]
    if type(effect.obj) is Together and every is not None:
        shares = (shared for shared, _ in effect.also)
        parts = zip(shares, every.guards, strict=False)
    for shared, guard in parts:
        if guard is not None:
            touching = hasattr(shared, "commute")
            code = 2 * trace.objects.number(shared) + touching
            found.append(Condition(shared, touching, code, guard, due and not found))
    return found


def meet(trace: Trace, tid: int, effect: Effect, footprint: Footprint, past: int, met: int) -> int:
    """Note the races of a new event, as `Trace._meet`. Its clock."""
    n = len(trace.tids)
    late: dict[Condition, None] = {}
    conditions = conditions_of(trace, effect)
    clock = past
    while met:
        rival = met.bit_length() - 1
        closed = [
            condition
            for condition in conditions
            if touched(trace, condition) >> rival & 1
            and not (condition.touching or condition.holds(trace.before(rival, condition.shared)))
        ]
        late.update(dict.fromkeys(closed))
        if not closed:
            trace.races.append((rival, n, tid, footprint, past, ()))
        clock |= trace.clocks[rival]
        met &= ~clock
    for condition in late:
        first = latest(trace, condition, past, touched(trace, condition) & ((1 << n) - 1))
        if first >= 0:
            trace.races.append((first, n, tid, footprint, past, ()))
    return clock


def waiting(trace: Trace, tid: int, effect: Effect, past: int, n: int, cuts: int = 0) -> list[Race]:
    """Races of a thread that cannot go on; `cuts` have to come after it whatever it waits for."""
    conditions = conditions_of(trace, effect)
    for condition in conditions:
        if condition.touching:
            events = touched(trace, condition) & ~past & ((1 << n) - 1) | cuts
            every = [event for event in range(n) if events >> event & 1]
            return [(event, n, tid, None, past, ()) for event in every]
    # What has to come after it, besides what happens after that.
    settled = False
    while not settled:
        settled = True
        for condition in conditions:
            event = closed_by(trace, condition, cuts, past, n)
            if event == NOTHING:
                return []
            if event >= 0:
                cuts |= 1 << event
                settled = False
    if not cuts:
        return []
    first, *without = [event for event in range(n) if cuts >> event & 1]
    footprint = trace.objects.footprint(effect)
    return [(first, n, tid, footprint, past, tuple(without))]


def closed_by(trace: Trace, condition: Condition, cuts: int, past: int, n: int) -> int:
    """The event that has to come later for the condition to hold, where `cuts` come later already.

    OPEN when it holds; NOTHING when no event can be left out for it.
    """
    clocks = trace.clocks
    writers = touched(trace, condition) & ((1 << n) - 1)
    state: object = condition.shared.state
    while writers:
        event = writers.bit_length() - 1
        if not clocks[event] & cuts:
            break
        state = trace.before(event, condition.shared)
        writers ^= 1 << event
    if condition.holds(state):
        return OPEN
    return latest(trace, condition, past, writers)


def latest(trace: Trace, condition: Condition, past: int, events: int) -> int:
    """The latest of these events before which the condition held, or NOTHING."""
    events &= ~past
    while events:
        event = events.bit_length() - 1
        events ^= 1 << event
        if condition.holds(trace.before(event, condition.shared)):
            return event
    return NOTHING


def touched(trace: Trace, condition: Condition) -> int:
    """Who may have changed what the condition asks for."""
    code = condition.code
    return trace.rivals[code] if code < len(trace.rivals) else 0
