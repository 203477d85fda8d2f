"""Windows: the stretches of a run in which a translation is wrong and nobody has said so yet.

| kind | opens | closes |
| --- | --- | --- |
| edit-to-inval | a guest edits a VPTE behind a live host PTE | its INVAL begins, or the PTE goes |
| inval-to-flush | an INVAL begins | the last TLB flush it causes, or its return |
| unmap-to-free | the last host PTE of a frame goes | the frame is freed |
| free-to-unmap | a frame is freed while a host PTE still maps it | the last such PTE goes |
| walk-to-enter | a fault has read the leaf VPTE | it enters the PTE |

A free-to-unmap window is a violation in itself; the others are what a design must keep closed to
somebody. It opens with the step that makes a translation wrong and closes with the one that makes
it harmless, and its width is the steps in between; what is still open at the end is as wide as the
run is from there on. A live log that has no steps is counted in events. This is the only definition
there is: failure.txt, report.html and `vkemu log windows` all ask this module.

Where a live log says that events were dropped, what was open is left out and everything is learnt
anew: the end of a window, or the edit that opened one, may have been among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_V

from vkemu.inspect.reader import Log
from vkhost.pc64.pmap_bits import PTE_V, pte_pfn

KINDS: Final = (
    "edit-to-inval", "inval-to-flush", "unmap-to-free", "free-to-unmap", "walk-to-enter",
)  # fmt: skip

ACCESSES: Final = "access-to-access"  # where no other kind leads to a failure

Place: TypeAlias = tuple[Any, int]  # (pmap, va of the page)
Word: TypeAlias = tuple[int | None, int | None]  # (frame, index): a VPTE


class Columns(msgspec.Struct, kw_only=True, gc=False):
    """The fields a window is made of, in the order of a line, in which they are found soonest.
    They hold numbers and words, so no cycle is possible."""

    seq: int
    step: int | None = None
    t: int
    actor: str
    event: str
    map: Any = None
    pmap: Any = None
    va: int | None = None
    start: int | None = None
    end: int | None = None
    pfn: int | None = None
    idx: int | None = None
    old: Any = None
    new: Any = None
    value: Any = None
    vshift: Any = None
    ok: bool = True


class Window(msgspec.Struct, frozen=True, gc=False):
    """One of them. `closed_by` is None when the log ended first. `opened` and `closed` are `seq`,
    the number of an event; the steps are None where the log has none."""

    kind: str
    what: str
    opened_by: str  # actor
    opened: int  # seq
    t_opened: int
    closed_by: str | None
    closed: int
    t_closed: int
    steps: int
    opened_step: int | None = None
    closed_step: int | None = None
    pfn: int | None = None  # the frame, of one that is about a frame
    places: tuple[Place, ...] = ()  # (pmap, va) of the translations

    @property
    def ns(self) -> int:
        return self.t_closed - self.t_opened


@dataclass(frozen=True, slots=True)
class Bracket:
    """The window of a failure: the step that opens it and the one that closes it, if any does; else
    the last of the run."""

    opens: int
    closes: int
    kind: str = ACCESSES
    stays_open: bool = False  # nothing in this run made it harmless

    @property
    def width(self) -> int:
        """In steps."""
        return self.closes - self.opens

    def __str__(self) -> str:
        if self.stays_open:
            return f"{self.kind}, open from step {self.opens} on, {self.width:,} steps wide"
        return f"{self.kind}, steps {self.opens} to {self.closes}, {self.width:,} steps wide"

    def as_dict(self) -> dict[str, Any]:
        """As summary.json and report.html have it."""
        return {
            "kind": self.kind,
            "opens": self.opens,
            "closes": self.closes,
            "staysOpen": self.stays_open,
            "width": self.width,
        }


class _Open(msgspec.Struct):
    kind: str
    what: str
    event: Columns
    pfn: int | None = None
    places: tuple[Place, ...] = ()
    last: Columns | None = None  # what closed it, if it turns out to be the last such event


class Windows:
    """Finds windows as events pass, and gives each to `take` when it closes."""

    def __init__(self, take: Callable[[Window], None]) -> None:
        self._take = take
        self.gaps = 0  # places where events were dropped
        self.cut = 0  # windows that were open there
        self._forget()
        self._on: dict[str, Callable[[Columns], None]] = {
            "vpte.read": self._vpte_read,
            "vpte.am": self._vpte_am,
            "mem.store": self._edit,
            "mem.cmpset": self._edit,
            "mem.emulate": self._edit,
            "fault.begin": self._fault_begin,
            "fault.retry": self._fault_begin,
            "fault.end": self._fault_end,
            "pte.write": self._pte_write,
            "inval.begin": self._inval_begin,
            "inval.end": self._inval_end,
            "tlb.flush": self._tlb_flush,
            "page.alloc": self._page_alloc,
            "page.free": self._page_free,
            "log.dropped": self._log_dropped,
        }

    def _forget(self) -> None:
        self._ptes: dict[Place, int] = {}  # live host PTEs: the frame each maps
        self._mapped: dict[int, set[Place]] = {}  # the reverse of it
        self._words: dict[Word, tuple[int, set[Place]]] = {}
        self._behind: dict[Place, set[Word]] = {}  # the VPTEs a host PTE came from
        self._faults: dict[str, tuple[Place, list[Word]]] = {}
        self._edits: dict[Word, _Open] = {}
        self._walks: dict[str, _Open] = {}
        self._invals: dict[tuple[str, Any, int], _Open] = {}
        self._unmapped: dict[int, _Open] = {}
        self._freed: dict[int, _Open] = {}

    def _log_dropped(self, _event: Columns) -> None:
        self.gaps += 1
        self.cut += len(self._edits) + len(self._freed) + len(self._invals)
        self._forget()

    def feed(self, events: Iterable[Columns]) -> None:
        on = self._on.get
        for event in events:
            take = on(event.event)
            if take is not None:
                take(event)

    def finish(self, last: Columns | None) -> None:
        """The log is over: what is still open stays so."""
        if last is None:
            return
        # An unmapped page that was never freed is an ordinary one; a walk that entered nothing
        # failed or was restarted. The others were left open.
        for opened in (*self._edits.values(), *self._freed.values(), *self._invals.values()):
            self._close(opened, last, closed_by=None)

    def _close(self, opened: _Open, event: Columns, closed_by: str | None) -> None:
        first = opened.event
        if first.step is not None and event.step is not None:
            steps = event.step - first.step
        else:
            steps = event.seq - first.seq
        self._take(
            Window(
                kind=opened.kind,
                what=opened.what,
                opened_by=first.actor,
                opened=first.seq,
                t_opened=first.t,
                closed_by=closed_by,
                closed=event.seq,
                t_closed=event.t,
                steps=steps,
                opened_step=first.step,
                closed_step=event.step,
                pfn=opened.pfn,
                places=opened.places,
            )
        )

    # Which VPTEs are behind which host PTE, and their edits.

    def _fault_begin(self, event: Columns) -> None:
        if event.va is not None:
            self._faults[event.actor] = (event.map, event.va & -PAGE_SIZE), []
        self._walks.pop(event.actor, None)

    def _fault_end(self, event: Columns) -> None:
        self._faults.pop(event.actor, None)
        self._walks.pop(event.actor, None)

    def _vpte_read(self, event: Columns) -> None:
        fault = self._faults.get(event.actor)
        if fault is None or event.pfn is None or event.idx is None:
            return
        place, path = fault
        word = event.pfn, event.idx
        path.append(word)
        known = self._words.get(word)
        self._words[word] = event.value, set() if known is None else known[1]
        if event.vshift == 0:
            what = f"{place[1]:#x}@{place[0]}"
            self._walks[event.actor] = _Open("walk-to-enter", what, event, places=(place,))

    def _vpte_am(self, event: Columns) -> None:
        if event.pfn is None or event.idx is None:
            return
        word = event.pfn, event.idx
        known = self._words.get(word)
        if known is not None:
            self._words[word] = event.new, known[1]

    def _edit(self, event: Columns) -> None:
        # Nearly every store is to ordinary memory, of which no walk has read a word.
        word = event.pfn, event.idx
        if word not in self._words or not event.ok:
            return
        known = self._words[word]
        old, places = known
        self._words[word] = event.value, places
        if places and word not in self._edits and wants_inval(old, event.value):
            shown = min(places, key=str)
            what = f"{shown[1]:#x}@{shown[0]}"
            if len(places) > 1:
                what += f" and {len(places) - 1} more"
            known_at = tuple(sorted(places, key=str))
            self._edits[word] = _Open("edit-to-inval", what, event, places=known_at)

    def _end_edits(self, words: Iterable[Word], event: Columns) -> None:
        for word in words:
            opened = self._edits.pop(word, None)
            if opened is not None:
                self._close(opened, event, event.actor)

    # Host PTEs and frames.

    def _pte_write(self, event: Columns) -> None:
        if event.va is None:
            return
        place = event.pmap, event.va
        gone = pte_pfn(event.old) if event.old & PTE_V else None
        come = pte_pfn(event.new) if event.new & PTE_V else None
        if come is not None:
            self._enter(place, come, event)
        if gone is not None and gone != come:
            self._remove(place, gone, event)
        if come is None:
            self._ptes.pop(place, None)
            words = self._behind.pop(place, set())
            for word in words:
                self._words[word][1].discard(place)
            self._end_edits(sorted(w for w in words if not self._words[w][1]), event)

    def _enter(self, place: Place, pfn: int, event: Columns) -> None:
        self._ptes[place] = pfn
        self._mapped.setdefault(pfn, set()).add(place)
        self._unmapped.pop(pfn, None)
        fault = self._faults.get(event.actor)
        if fault is None or fault[0] != place:
            return
        walked = self._walks.pop(event.actor, None)
        if walked is not None:
            self._close(walked, event, event.actor)
            self._behind.setdefault(place, set()).update(fault[1])
            for word in fault[1]:
                self._words[word][1].add(place)

    def _remove(self, place: Place, pfn: int, event: Columns) -> None:
        places = self._mapped.get(pfn, set())
        places.discard(place)
        if places:
            return
        opened = self._freed.pop(pfn, None)
        if opened is not None:
            self._close(opened, event, event.actor)
        else:
            self._unmapped[pfn] = _Open("unmap-to-free", f"page {pfn}", event, pfn)

    def _page_alloc(self, event: Columns) -> None:
        if event.pfn is not None:
            self._unmapped.pop(event.pfn, None)

    def _page_free(self, event: Columns) -> None:
        pfn = event.pfn
        if pfn is None:
            return
        opened = self._unmapped.pop(pfn, None)
        if opened is not None:
            self._close(opened, event, event.actor)
        places = self._mapped.get(pfn)
        if places and pfn not in self._freed:
            shown = min(places, key=str)
            what = f"page {pfn} at {shown[1]:#x}@{shown[0]}"
            self._freed[pfn] = _Open("free-to-unmap", what, event, pfn)

    # INVAL.

    def _inval_begin(self, event: Columns) -> None:
        if event.start is None or event.end is None:
            return
        key = event.actor, event.pmap, event.start
        what = f"{event.start:#x}-{event.end:#x}@{event.pmap}"
        self._invals[key] = _Open("inval-to-flush", what, event)
        if not self._edits:
            return
        # An edit is announced when the INVALs cover every translation that came from the word.
        covered = [
            place
            for word in self._edits
            for place in self._words[word][1]
            if place[0] == event.pmap and event.start <= place[1] < event.end
        ]
        for place in covered:
            words = self._behind.pop(place, set())
            for word in words:
                self._words[word][1].discard(place)
            self._end_edits(sorted(w for w in words if not self._words[w][1]), event)

    def _tlb_flush(self, event: Columns) -> None:
        for opened in self._invals.values():
            first = opened.event
            assert first.start is not None
            assert first.end is not None
            if event.va is not None and (event.va < 0 or first.start <= event.va < first.end):
                opened.last = event

    def _inval_end(self, event: Columns) -> None:
        opened = self._invals.pop((event.actor, event.pmap, event.start or 0), None)
        if opened is not None:
            last = opened.last or event
            self._close(opened, last, last.actor)


def wants_inval(old: Any, new: Any) -> bool:
    """Whether a VPTE edit makes a cached translation wrong: anything but adding A or M, or
    making an invalid one valid. Clearing M counts: the host PTE stays writable (W13)."""
    if not isinstance(old, int) or not isinstance(new, int) or not old & VPTE_V:
        return False
    return bool(old & ~new) or bool((new & ~old) & ~(VPTE_A | VPTE_M))


def windows(log: Log) -> list[Window]:
    """Every window of the log, in the order they closed."""
    found: list[Window] = []
    find(log, found.append)
    return found


def find(log: Log, take: Callable[[Window], None]) -> Windows:
    """As `windows`, one at a time."""
    finder = Windows(take)
    last: Columns | None = None
    for rows, _ in log.batches(Columns):
        finder.feed(rows)
        if rows:
            last = rows[-1]
    finder.finish(last)
    return finder
