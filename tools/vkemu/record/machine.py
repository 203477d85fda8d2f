"""The machine as its events describe it: pages, PTEs, TLBs, locks, interlocks, processors.

`Machine.apply` takes one event and says what it changed, as (thing, attribute, before, after) in
words; None is "not there". Forward or backward, the changes are all a viewer needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from vkprotocol.events import ALL_VA, NO_OBJECT
from vkprotocol.vpte import vpte_text

from vkemu.record.narrate import (
    PG_BITS,
    Event,
    bits_text,
    pte_frame,
    pte_text,
    queue_text,
    span,
    value_text,
)

# thing, attribute, before, after: ("page 12", "queue", "active", "free")
Change: TypeAlias = tuple[str, str, str | None, str | None]


class Machine:
    """Invariant: `state[thing]` holds no None, and no thing without attributes is in `state`."""

    def __init__(self) -> None:
        self.state: dict[str, dict[str, str]] = {}
        self.mapped: dict[int, int] = {}  # frame -> how many valid PTEs name it
        self._flags: dict[int, int] = {}
        self._changes: list[Change] = []
        self._apply: dict[str, Callable[[Event], None]] = {
            name.replace("_", "."): getattr(self, f"on_{name}") for name in _EVENTS
        }

    def apply(self, event: Event) -> list[Change]:
        """The event happens; what it changed."""
        self._changes = []
        on = self._apply.get(event["event"])
        if on is not None:
            try:
                on(event)
            except (KeyError, TypeError):
                pass  # an event from elsewhere that lacks a field tells nothing of it
        return self._changes

    def get(self, thing: str, attribute: str) -> str | None:
        return self.state.get(thing, {}).get(attribute)

    def set(self, thing: str, attribute: str, after: str | None) -> None:
        before = self.get(thing, attribute)
        if before == after:
            return
        self._changes.append((thing, attribute, before, after))
        attributes = self.state.setdefault(thing, {})
        if after is None:
            del attributes[attribute]
            if not attributes:
                del self.state[thing]
        else:
            attributes[attribute] = after

    def translations(self, pfn: int) -> list[str]:
        """The PTEs and TLB entries that lead to the frame."""
        prefix = f"page {pfn}"
        return sorted(
            thing
            for thing, attributes in self.state.items()
            if thing.startswith(("pte ", "TLB"))
            and (attributes["maps"] == prefix or attributes["maps"].startswith(prefix + " "))
        )

    # Pages.

    def on_page_alloc(self, event: Event) -> None:
        page, owner = f"page {event['pfn']}", f"{event['object']}+{event['pindex']}"
        if event["object"] == NO_OBJECT:
            owner = "no object"
        self._flags[event["pfn"]] = 0
        self.set(page, "owner", owner)
        self.set(page, "generation", str(event["gen"]))
        self.set(page, "flags", None)
        self.set(page, "busy", f"hard, {event['actor']}")

    def on_page_free(self, event: Event) -> None:
        page = f"page {event['pfn']}"
        self.set(page, "owner", None)
        self.set(page, "busy", None)
        self.set(page, "dirty", None)
        self.set(page, "queue", "free")

    def on_page_queue(self, event: Event) -> None:
        self.set(f"page {event['pfn']}", "queue", queue_text(event["new"]))

    def on_page_flags(self, event: Event) -> None:
        pfn = event["pfn"]
        flags = (self._flags.get(pfn, 0) | event["set"]) & ~event["clear"]
        self._flags[pfn] = flags
        self.set(f"page {pfn}", "flags", bits_text(flags, PG_BITS) if flags else None)

    def on_page_dirty(self, event: Event) -> None:
        self.set(f"page {event['pfn']}", "dirty", "yes" if event["value"] else None)

    def on_page_busy(self, event: Event) -> None:
        self.set(f"page {event['pfn']}", "busy", f"{event['kind']}, {event['actor']}")

    def on_page_unbusy(self, event: Event) -> None:
        self.set(f"page {event['pfn']}", "busy", None)

    def on_page_wire(self, event: Event) -> None:
        self.set(f"page {event['pfn']}", "wired", str(event["count"]) if event["count"] else None)

    def on_page_hold(self, event: Event) -> None:
        self.set(f"page {event['pfn']}", "held", str(event["count"]) if event["count"] else None)

    # Translations.

    def on_pte_write(self, event: Event) -> None:
        thing = f"pte {event['va']:#x}@{event['pmap']}"
        gone, come = pte_frame(event["old"]), pte_frame(event["new"])
        if gone != come:
            for pfn, delta in ((gone, -1), (come, 1)):
                if pfn is not None:
                    self.mapped[pfn] = self.mapped.get(pfn, 0) + delta
        self.set(thing, "maps", None if come is None else pte_text(event["new"]))

    def on_tlb_fill(self, event: Event) -> None:
        thing = f"TLB{event['cpu']} {event['va']:#x}"
        self.set(thing, "maps", f"page {event['pfn']}")

    def on_tlb_flush(self, event: Event) -> None:
        tlb = f"TLB{event['cpu']} "
        if event["va"] != ALL_VA:
            self._drop(f"{tlb}{event['va']:#x}", "maps")
            return
        for thing in [thing for thing in self.state if thing.startswith(tlb)]:
            self.set(thing, "maps", None)

    def on_vpte_read(self, event: Event) -> None:
        self.set(vpte_name(event), "value", vpte_text(event["value"]))

    def on_vpte_am(self, event: Event) -> None:
        self.set(vpte_name(event), "value", vpte_text(event["new"]))

    def on_mem_store(self, event: Event) -> None:
        # Only words the walker has read are kept: those are page tables, the others memory.
        thing = vpte_name(event)
        if thing in self.state and event.get("ok", True):
            self.set(thing, "value", vpte_text(event["value"]))

    on_mem_cmpset = on_mem_emulate = on_mem_store

    # Locks and who runs what.

    def on_ilock_enter(self, event: Event) -> None:
        self._drop(f"ilock {span(event)}@{event['map']}", f"wanted by {event['actor']}")
        self.set(f"ilock {span(event)}@{event['map']}", "held by", event["actor"])

    def on_ilock_exit(self, event: Event) -> None:
        self._drop(f"ilock {span(event)}@{event['map']}", "held by")

    def on_ilock_wait(self, event: Event) -> None:
        self.set(f"ilock {span(event)}@{event['map']}", f"wanted by {event['actor']}", "yes")

    def on_map_lock_wait(self, event: Event) -> None:
        self.set(f"map {event['map']} lock", f"wanted by {event['actor']}", "yes")

    def on_map_lock(self, event: Event) -> None:
        lock = f"map {event['map']} lock"
        self._drop(lock, f"wanted by {event['actor']}")
        self.set(lock, event["actor"], "exclusive" if event["exclusive"] else "shared")

    def on_map_unlock(self, event: Event) -> None:
        self._drop(f"map {event['map']} lock", event["actor"])

    def on_map_insert(self, event: Event) -> None:
        what = f"{event['maptype']} {event['object']}+{event['offset']}"
        self.set(f"map {event['map']} {span(event)}", "maps", what)

    def on_map_remove(self, event: Event) -> None:
        self._drop(f"map {event['map']} {span(event)}", "maps")

    def on_cpu_pmap(self, event: Event) -> None:
        self.set(f"cpu {event['cpu']}", "pmap", str(event["pmap"]))

    def on_cpu_active(self, event: Event) -> None:
        mask = event["mask"]
        self.set(f"pmap {event['pmap']}", "active", value_text("mask", mask) if mask else None)

    def on_vmspace_ref(self, event: Event) -> None:
        thing = f"vmspace {event['id']}@{event['proc']}"
        self.set(thing, "refs", str(event["refs"]) if event["refs"] else None)

    def on_run_enter(self, event: Event) -> None:
        self.set(f"lwp {event['lwp']}", "runs", f"vmspace {event['id']}")

    def on_run_exit(self, event: Event) -> None:
        self.set(f"lwp {event['lwp']}", "runs", None)

    def _drop(self, thing: str, attribute: str) -> None:
        if self.get(thing, attribute) is not None:
            self.set(thing, attribute, None)


def vpte_name(event: Event) -> str:
    """A word the walker reads: where it is, or that it is the root a SETMAP gave."""
    return f"vpte page {event['pfn']}[{event['idx']}]" if event["pfn"] >= 0 else "vpte master pde"


_EVENTS: Final = tuple(name.removeprefix("on_") for name in vars(Machine) if name.startswith("on_"))
