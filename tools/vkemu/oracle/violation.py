"""What a check raises: which invariant, which frame, whose, and the two accesses that collide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from vkprotocol.events import EVENTS

INVARIANTS: Final = {
    1: "no stale translation",
    2: "no mapping of a free frame",
    3: "a mapped page is marked mapped",
    4: "changed bytes are dirty",
    5: "a page the guest's user changed has VPTE_M",
    6: "a writable host PTE comes from a writable VPTE",
    7: "interlocks exclude each other",
    8: "lock hygiene",
    10: "vmspace references are runners and calls",
    11: "programs find what they stored",
    12: "what is counted is what there is",
}


class Happening(NamedTuple):
    """One event as the oracle saw it. A tuple, since most of them are made to be forgotten."""

    step: int
    actor: str
    name: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        event = EVENTS.get(self.name)
        if event is None:
            fields = " ".join(map(str, self.args))
        else:
            pairs = zip(event.fields, self.args, strict=False)
            fields = " ".join(f"{field.name}={_shown(field.name, value)}" for field, value in pairs)
        return f"event {self.step} {self.actor}: {self.name} {fields}"


HEXADECIMAL: Final = frozenset(
    {"va", "gpa", "start", "end", "old", "new", "bits", "set", "clear", "id"}
)


def _shown(field: str, value: Any) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if field in HEXADECIMAL and isinstance(value, int) and not isinstance(value, bool):
        return hex(value)
    return str(value)


class Violation(AssertionError):
    """An invariant is broken, at the step in which it breaks."""

    def __init__(
        self,
        invariant: int,
        message: str,
        *,
        check: str = "",
        accesses: tuple[Happening | None, Happening | None] = (None, None),
        frame: int | None = None,
        owners: tuple[str, str] | None = None,
        events: Iterable[Happening] = (),
    ) -> None:
        self.invariant = invariant
        self.check = check
        self.message = message
        self.accesses = accesses
        self.frame = frame
        self.owners = owners
        self.events = tuple(events)
        super().__init__(self.text())

    @property
    def kind(self) -> str:
        """What two violations that are one defect have in common."""
        return f"{self.invariant} {self.check}".rstrip()

    def text(self) -> str:
        lines = [f"invariant {self.invariant} ({INVARIANTS[self.invariant]}): {self.message}"]
        if self.frame is not None:
            lines.append(f"  frame   {self.frame}")
        if self.owners is not None:
            lines.append(f"  owner   then {self.owners[0]}, now {self.owners[1]}")
        first, second = self.accesses
        if first is not None:
            lines.append(f"  first   {first}")
        if second is not None:
            lines.append(f"  second  {second}")
        if first is not None and second is not None:
            lines.append(f"  apart   {second.step - first.step} events")
        if self.events:
            lines.append("  what happened to it:")
            lines += [f"    {happening}" for happening in self.events]
        return "\n".join(lines)
