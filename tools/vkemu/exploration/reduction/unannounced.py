"""Accesses that no effect announces, and whether the order of the effects settles them anyway.

A thread that looks at `x.value` when all who write x are done, or have not begun, and cannot have
been, reads nothing new: what it reads is the same in every execution of the trace. Otherwise the
trace does not say what it has read, and every step has to be taken for one that reads x.

So it is with who sets `x.state`, and has not said so; but then every step counts, and it does where
a guard or a predicate looks at x, whatever the order is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vkprotocol.effects import Shared, key_text

from vkemu.exploration.inside import is_fixed, loose
from vkemu.exploration.looks import Asked, Writing
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.reduction.trace import Trace


class Unannounced:
    """What was looked at on the path, and in the step of which event."""

    def __init__(self, objects: Objects, trace: Trace) -> None:
        self.objects = objects
        self.trace = trace
        self.looks: list[tuple[int, Any]] = []

    def looked(self, thing: Any) -> None:
        """A thread looks at it, or sets it, with no effect that says so, in the step of the last
        event."""
        if self.trace.tids:
            self.looks.append((len(self.trace) - 1, thing))

    def truncate(self, n: int) -> None:
        looks = self.looks
        while looks and looks[-1][0] >= n:
            looks.pop()

    def loose(self) -> bool:
        """Whether what was looked at holds what may be changed."""
        return loose([at.state for _, at in self.looks if isinstance(at, Shared)])

    def unordered(self) -> bool:
        """The execution is over. True when what was looked at depends on more than was known."""
        trace = self.trace
        found = False
        for event, thing in self.looks:
            if isinstance(thing, Writing):
                found = self.written(event, thing.shared) or found
            elif isinstance(thing, Asked):
                found = self.asked(event, thing) or found
            elif open_to(trace, event, writers(trace, self.objects, thing)):
                found = self.objects.expose(thing.key) or found
        return found

    def asked(self, event: int, asked: Asked) -> bool:
        """The step of an event has asked what has become of a thread. True when more depends on
        that than was known."""
        trace, objects = self.trace, self.objects
        thread, what = asked
        if objects.all_seen:
            return False
        if thread is not None:
            own = trace.own[thread.tid] if thread.tid < len(trace.own) else 0
            if what == "done" or what == "error":
                own = 1 << (own.bit_length() - 1) if own and thread.done else 0
            if not open_to(trace, event, own):
                return False
        name = "another" if thread is None else thread.name
        objects.see_all(f"a thread asks for {what} of {name}: every step counts")
        return True

    def written(self, event: int, shared: Shared) -> bool:
        """The step of an event has set it. True when more depends on that than was known."""
        trace, objects = self.trace, self.objects
        load = 2 * objects.number(shared)
        said = trace.footprints[event]
        if load + 1 in said or objects.unsure:
            return False
        if load in said and not hasattr(shared, "commute"):
            return objects.order(shared.key)
        touched = trace.rivals[load + 1] if load < len(trace.rivals) else 0
        for other, thing in self.looks:
            at = thing.shared if isinstance(thing, Writing) else thing
            touched |= (isinstance(at, Shared) and at.key == shared.key) << other
        judged = shared.key in objects.seen or shared.key in objects.exposed
        # Who waits for it is not asked again, and might have come later.
        if judged or shared.waiters or open_to(trace, event, touched):
            objects.doubt(
                f"{key_text(shared.key)} is set by a thread without an effect: every step counts; "
                "await its store, or name it in k.step(...)"
            )
            return True
        return False


def writers(trace: Trace, objects: Objects, thing: Shared) -> int:
    """The events that change it."""
    code = 2 * objects.number(thing) + hasattr(thing, "commute")
    return trace.rivals[code] if code < len(trace.rivals) else 0


def open_to(trace: Trace, event: int, writes: int) -> bool:
    """Whether one of the writes is neither before nor after the event."""
    clocks = trace.clocks
    if writes & ((1 << event) - 1) & ~clocks[event]:
        return True
    later = writes >> (event + 1)
    while later:
        write = event + later.bit_length()
        if not clocks[write] >> event & 1:
            return True
        later ^= 1 << (later.bit_length() - 1)
    return False


def changeable(trace: Trace, awaited: Iterable[Shared]) -> str:
    """What there is to say of what a guard is given, where that can change without an effect."""
    loose = [shared for shared in awaited if not is_fixed(shared.state)]
    loose += [
        effect.obj
        for effect, before in zip(trace.effects, trace.befores, strict=True)
        if effect.obj in awaited and not is_fixed(before)
    ]
    if not loose:
        return ""
    key = key_text(loose[0].key)
    return (
        f"a guard looks into what {key} holds, which can be changed without {key}: every step "
        "counts; what it waits for has to be a number, a text, or a tuple of such"
    )
