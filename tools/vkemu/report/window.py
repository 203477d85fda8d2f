"""The window of a failure: `inspect.windows`' own, of what its events say.

Where no such window leads to the failure, it is the stretch from one of the two accesses to the
other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vkemu.inspect.windows import Columns, Place, Window, Windows
from vkemu.record.narrate import Event

_FIELDS: Final = frozenset(Columns.__struct_fields__)


def windows_of(events: Iterable[Event]) -> list[Window]:
    """As `vkemu log windows` finds them."""
    found: list[Window] = []
    finder = Windows(found.append)
    last = None
    for seq, event in enumerate(events):
        known = {name: value for name, value in event.items() if name in _FIELDS}
        last = Columns(**{**known, "seq": seq})
        finder.feed((last,))
    finder.finish(last)
    return found


def leading(
    found: Iterable[Window], harm: int, frame: int | None, places: set[Place]
) -> Window | None:
    """The window that the harm, in that step, was done through; the last opened of its kind."""
    open_then = [
        w
        for w in found
        if w.closed_step is not None and (w.closed_by is None or w.closed_step >= harm)
    ]
    # What makes a translation wrong, the likeliest first.
    leading_kinds = ("free-to-unmap", "edit-to-inval", "walk-to-enter")
    for kind in leading_kinds:
        of_kind = [
            w
            for w in open_then
            if w.kind == kind and ((frame is not None and w.pfn == frame) or places & {*w.places})
        ]
        if of_kind:
            return max(of_kind, key=lambda w: w.opened)
    return None
