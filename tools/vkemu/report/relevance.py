"""Which rows of a run matter to its failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from vkprotocol.effects import key_text

from vkemu.record.narrate import Event, narrate, pte_frame
from vkemu.report.failure import Failure, frames_of
from vkemu.report.recording import Step
from vkhost.vm.vm_page_queue import PQ_CACHE

ESSENTIAL: Final = 5  # an access, or an end of the window
STORY: Final = 4  # the frame changes hands, gains or loses a mapping, or is laundered
STRONG: Final = 3  # a translation, a frame's owner or an invalidation changes
WEAK: Final = 2  # a flag, a queue, a busy bit of the frame
BYSTANDER: Final = 1  # something else that was said; only of the actors concerned
NONE: Final = 0

_STRONG: Final = frozenset(
    {
        "page.alloc", "page.free", "page.copy", "pte.write", "tlb.fill", "tlb.flush", "mem.store",
        "mem.cmpset", "mem.emulate", "inval.begin", "inval.end", "setmap.begin", "setmap.end",
        "fault.begin",
        "fault.retry", "fault.end", "ilock.enter", "ilock.exit", "ilock.wait", "vpte.read",
        "pageout.launder", "pageout.page", "pager.put", "pager.get", "guest.free", "guest.alloc",
        "page.dirty", "map.remove", "vmspace.destroy", "walk.begin", "walk.end",
    }
)  # fmt: skip
_ALWAYS: Final = frozenset({"panic", "oom.kill"})
_STORY: Final = frozenset({"page.alloc", "page.free", "pageout.launder"})
_QUIET: Final = frozenset({"mem.load", "page.busy", "page.unbusy", "page.wire", "page.hold"})


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that happened: an event, or the bare effect of a step that has none."""

    step: Step
    text: str
    weight: int
    actor: str
    function: str
    event: Event | None = None


class Relevance:
    """Follows a run. `of` must be asked about its events in order."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.objects = failure.objects
        self.frames = set[int]() if failure.frame is None else {failure.frame}
        self.places = failure.places
        for access in failure.accesses:
            if access.event is not None and failure.frame is None:
                self.frames |= frames_of(access.event)
        # A thread runs to its first effect when it is spawned: in the set-up, and yet its own.
        self.actors = {step.actor for step in failure.steps if step.number}
        self._find_places()
        self._walking: dict[str, bool] = {}  # is the actor's fault about one of the places

    def _find_places(self) -> None:
        """The translations that lead to the frame without a reverse map: all that ever did."""
        for step in self.failure.steps:
            for event in step.events:
                if event["event"] == "pte.write" and self.frames & frames_of(event):
                    self.places.add((event["pmap"], event["va"] & -4096))

    def of(self, event: Event) -> int:
        name, actor = event["event"], event["actor"]
        if name in _ALWAYS:
            return ESSENTIAL
        if name == "console":
            return STRONG
        near = self._near(event)
        if near and self._is_story(event):
            return STORY
        if name in {"fault.begin", "walk.begin"}:
            self._walking[actor] = near
        if name in {"vpte.read", "vpte.am"}:
            near = self._walking.get(actor, False)
        if name in {"fault.end", "walk.end"}:
            near = self._walking.pop(actor, near)
        if not near:
            return NONE
        if name in _QUIET:
            return BYSTANDER
        return STRONG if name in _STRONG else WEAK

    def _is_story(self, event: Event) -> bool:
        name = event["event"]
        if not self.frames & frames_of(event):
            return False
        if name == "pte.write":
            return pte_frame(event["old"]) != pte_frame(event["new"])
        unmaps = 0x21  # PG_MAPPED | PG_VPTMAPPED
        if name == "page.flags":
            return bool(event["clear"] & unmaps)
        return name in _STORY or (name == "page.queue" and event["new"] == PQ_CACHE)

    def _near(self, event: Event) -> bool:
        if self.frames & frames_of(event):
            return True
        space: Any = event.get("pmap", event.get("map"))
        if "start" in event and "end" in event:
            return any(
                pmap == space and event["start"] <= va < event["end"] for pmap, va in self.places
            )
        va = event.get("va")
        if not isinstance(va, int):
            return False
        if space is None:  # a TLB flush names a CPU only
            return any(place[1] == va & -4096 for place in self.places)
        return (space, va & -4096) in self.places


def rows_of(failure: Failure) -> Iterator[Row]:
    """Every row of the run with its weight."""
    rows = list(_rows_of(failure))
    story_rows = 40  # of a long story, the end
    early = sum(row.weight == STORY for row in rows) - story_rows
    for row in rows:
        if row.weight == STORY and early > 0:
            early -= 1
            yield replace(row, weight=STRONG)
        else:
            yield row


def _rows_of(failure: Failure) -> Iterator[Row]:
    relevance = Relevance(failure)
    bracket = failure.bracket
    ends = {bracket.opens, bracket.closes} if bracket else set()
    accesses = {access.step: access.event for access in failure.accesses}
    for step in failure.steps:
        heaviest = NONE
        rows = []
        for event in step.events:
            weight = relevance.of(event)
            if step.number == 0 and event["actor"] not in relevance.actors:
                weight = NONE  # the set-up is not part of the story
            if accesses.get(step.number) is event:
                weight = ESSENTIAL
            heaviest = max(heaviest, weight)
            function = event.get("function", step.function)
            rows.append(Row(step, narrate(event), weight, event["actor"], function, event))
        waited_for = key_text(step.key) in relevance.objects
        if step.op and (not rows or waited_for):
            weight = max(STRONG if waited_for else NONE, failure.weights.get(step.number, NONE))
            text = f"{step.effect}{step.note}"
            rows.insert(0, Row(step, text, weight, step.actor, step.function))
        if (
            step.number
            and (step.number in ends or step.number in accesses)
            and heaviest < ESSENTIAL
            and rows
        ):
            best = max(range(len(rows)), key=lambda i: rows[i].weight)
            rows[best] = replace(rows[best], weight=ESSENTIAL)
        if not failure.invariant:  # no event tells it: what the test said does
            rows += [Row(step, text, STORY, actor, "") for actor, text in step.said]
        yield from rows


def threshold(rows: list[Row], most: int) -> int:
    """The least weight that leaves at most so many rows."""
    for weight in (BYSTANDER, WEAK, STRONG, STORY):
        if sum(row.weight >= weight for row in rows) <= most:
            return weight
    return ESSENTIAL
