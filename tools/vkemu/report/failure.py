"""What a failing run has to tell, whoever ran it: `run`, `explore` or `matrix`.

recording = Recording(execution, recorded(choices))      # the failing schedule again
...
failure = Failure.of(error, recording.steps, replay="vkemu replay vk1...")
failure.measure(rerun)                                   # optional: how wide the window is
text.render(failure); html.render(failure)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vkprotocol.effects import key_text
from vkprotocol.events import EVENTS

from vkemu.inspect.windows import Bracket
from vkemu.oracle.violation import INVARIANTS, Happening, Violation
from vkemu.record.machine import Machine
from vkemu.record.narrate import Event, narrate, pte_frame
from vkemu.report.recording import Step
from vkemu.report.width import POSITIONS_MAX, Rerun, Width, measure
from vkemu.report.window import leading, windows_of

POSITIONS: Final = "positions"  # a window that is known by where the moved step fails
# What an access is called in the header, by its event.
ROLES: Final = {
    "mem.load": "read", "mem.store": "write", "mem.cmpset": "write", "mem.emulate": "write",
    "page.free": "free",
    "page.alloc": "alloc", "pte.write": "pte", "tlb.fill": "use", "tlb.flush": "flush",
    "inval.begin": "inval", "inval.end": "inval", "page.dirty": "clean", "page.queue": "queue",
    "page.flags": "flags", "pager.put": "write", "guest.free": "free",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Access:
    """One of the two that collide."""

    role: str
    actor: str
    step: int
    what: str
    function: str = ""
    where: str = ""
    event: Event | None = None


@dataclass(slots=True)
class Failure:
    """A failing run. `context` is what identifies it: scenario, policy, seed ..."""

    message: str
    steps: list[Step]
    invariant: str = ""
    detail: tuple[str, ...] = ()
    accesses: tuple[Access, ...] = ()
    code: tuple[str, ...] = ()  # where machine code was
    frame: int | None = None
    owners: tuple[str, str] | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    replay: str = ""
    width: Width | None = None
    closed_by: list[str] = field(default_factory=list)
    # Of steps that have no events: how much each matters, as `relevance` weighs events.
    weights: Mapping[int, int] = field(default_factory=dict)
    _bracket: tuple[Bracket | None] | None = None

    @classmethod
    def of(
        cls,
        error: BaseException,
        steps: list[Step],
        *,
        replay: str = "",
        context: Mapping[str, str] | None = None,
    ) -> Failure:
        """What `error` - a Violation, or a Deadlock or Panic - says about these steps."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        failure = cls(lines[0], steps, replay=replay, context=dict(context or {}))
        if isinstance(error, Violation):
            failure.message = in_steps(error.message, steps)
            failure.invariant = f"{error.invariant}: {INVARIANTS[error.invariant]}"
            failure.frame = error.frame
            failure.owners = error.owners
            failure.accesses = tuple(
                access_of(happening, steps) for happening in error.accesses if happening
            )
        else:
            details = (f" waits:  {detail}" for detail in getattr(error, "details", ()))
            failure.detail = (*lines[1:], *details)
            last = next((step for step in reversed(steps) if step.op or step.events), None)
            if last is not None:
                failure.accesses = (access_at(last, "last"),)
        return failure

    @property
    def places(self) -> set[tuple[Any, int]]:
        """(pmap, va) of the translations in question."""
        found = set()
        for access in self.accesses:
            event = access.event or {}
            pmap = event.get("pmap", event.get("map"))
            va = event.get("va", event.get("start"))
            if pmap is not None and isinstance(va, int) and va >= 0:
                found.add((pmap, va & -4096))
        return found

    @property
    def objects(self) -> set[str]:
        """The objects that the message names: what the threads of a deadlock wait for."""
        if self.invariant:
            return set()
        named = set(" ".join((self.message, *self.detail)).replace(";", " ").split())
        return {text for step in self.steps if (text := key_text(step.key)) in named}

    def movable(self) -> list[Access]:
        """The accesses that can be moved: not what the set-up did. First the one of the thread that
        took fewer steps, since there are more places to move it to."""
        taken = Counter(step.actor for step in self.steps)
        several = len(taken) > 2  # the set-up and one more
        movable = [a for a in self.accesses[:2] if several and 0 < a.step < len(self.steps)]
        if len(movable) == 2 and movable[0].actor == movable[1].actor:
            del movable[0]
        return sorted(movable, key=lambda access: taken[access.actor])

    @property
    def bracket(self) -> Bracket | None:
        """The window, once it has been looked for."""
        if self._bracket is None:
            self._bracket = (self._find_bracket(),)
        return self._bracket[0]

    def _find_bracket(self) -> Bracket | None:
        harm = max((access.step for access in self.accesses), default=0)
        events = [event for step in self.steps for event in step.events]
        window = leading(windows_of(events), harm, self.frame, self.places)
        if window is not None and self.invariant and window.opened_step:
            assert window.closed_step is not None
            if window.closed_by is None:
                last = len(self.steps) - 1
                return Bracket(window.opened_step, last, window.kind, stays_open=True)
            return Bracket(window.opened_step, window.closed_step, window.kind)
        if self.weights:  # a program: what was measured is all there is
            return self._measured(self.width) if self.width is not None else None
        if len(self.accesses) < 2 or not self.accesses[0].step:
            return self._measured(self.width) if self.width is not None else None
        first, second = self.accesses[:2]
        return Bracket(min(first.step, second.step), max(first.step, second.step))

    def _measured(self, width: Width) -> Bracket | None:
        if not width.failing:
            return None
        moved = self.steps[width.step]
        others = [s.number for s in self.steps[1:] if s.tid != moved.tid]
        low, high = width.span
        opens = others[low - 1] if low > 0 else 0
        later = [p for p in width.positions if p > high]
        if later and later[0] <= len(others):
            return Bracket(opens, others[later[0] - 1], POSITIONS)
        return Bracket(opens, len(self.steps) - 1, POSITIONS, stays_open=True)

    def measure(
        self,
        rerun: Rerun,
        alternatives: Mapping[str, Rerun] | None = None,
        limit: int = POSITIONS_MAX,
    ) -> None:
        """Find the window's width, and which alternative designs have none.

        `rerun(choose)` runs the program again and says whether it fails as this one did;
        `alternatives` do the same with something changed, by name.
        """
        schedule = [step.tid for step in self.steps[1:]]
        for access in self.movable():
            width = measure(schedule, access.step, access.actor, rerun, limit)
            if self.width is None or width.share < self.width.share:
                self.width = width
            if self.width.share < 1 or width.partial:
                break  # one that fails wherever it is says less
        if self.width is None or (len(self.movable()) == 1 and self.width.share >= 1):
            self.width = None  # it fails wherever it is: that is no window
            return
        moved = self.width
        for name, other in (alternatives or {}).items():
            width = measure(schedule, moved.step, moved.actor, other, limit)
            if not width.failing:
                positions = len(width.positions)
                self.closed_by.append(f"{name} (0 of {positions} positions fail)")

    def owners_of_frame(self) -> list[str]:
        """Who owned the frame when, and the translations that led to it at the end."""
        if self.frame is None:
            return []
        machine = Machine()
        lines = []
        for step in self.steps:
            for event in step.events:
                for thing, attribute, before, after in machine.apply(event):
                    if thing == f"page {self.frame}" and attribute == "owner":
                        if before is not None:
                            lines.append(f"{before} until step {step.number}")
                        if after is not None and before is not None:
                            lines.append(f"{after} from step {step.number}")
        now = machine.get(f"page {self.frame}", "owner")
        if now is not None and not lines:
            lines.append(now)
        if machine.translations(self.frame):
            lines.append(f"mapped by {', '.join(machine.translations(self.frame)[:4])}")
        return lines


def in_steps(message: str, steps: list[Step]) -> str:
    """The oracle knows events, by their number from 1; here they are told by the step."""
    numbers = [step.number for step in steps for _ in step.events]

    def step_of(match: re.Match[str]) -> str:
        event = int(match[1])
        return f"step {numbers[event - 1]}" if 0 < event <= len(numbers) else match[0]

    return re.sub(r"\bevent (\d+)\b", step_of, message)


def alike(one: BaseException | None, other: BaseException | None) -> bool:
    """The same kind of failure, perhaps at another place."""
    if isinstance(one, Violation) and isinstance(other, Violation):
        return one.invariant == other.invariant
    return one is not None and type(one) is type(other)


def access_of(happening: Happening, steps: list[Step]) -> Access:
    """The step in which the oracle saw this happen; the last one that fits."""
    fields = [field.name for field in EVENTS[happening.name].fields]
    wanted = {
        name: value
        for name, value in zip(fields, happening.args, strict=False)
        if not isinstance(value, bytes)
    }
    for step in reversed(steps):
        for event in step.events:
            if event["event"] == happening.name and all(
                event.get(name) == value for name, value in wanted.items()
            ):
                return access_at(step, ROLES.get(happening.name, "event"), event)
    event = {"event": happening.name, "actor": happening.actor, **wanted}
    role = ROLES.get(happening.name, "event")
    return Access(role, happening.actor, happening.step, narrate(event), event=event)


def access_at(step: Step, role: str, event: Event | None = None) -> Access:
    if event is None:
        return Access(role, step.actor, step.number, step.effect, step.function, step.where)
    function, where = event.get("function", step.function), event.get("where", step.where)
    return Access(role, event["actor"], step.number, narrate(event), function, where, event)


def frames_of(event: Event) -> set[int]:
    """The frames an event is about."""
    frames = {event[name] for name in ("pfn", "src", "dst") if isinstance(event.get(name), int)}
    if event["event"] == "pte.write":
        frames |= {f for f in (pte_frame(event["old"]), pte_frame(event["new"])) if f is not None}
    return frames
