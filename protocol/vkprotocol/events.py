"""The events of a run: one table, from which documentation, log lines and validation come.

The host calls `emit(name, *fields)` in the very step in which the thing happens. The oracle and the
log consume nothing else, so whatever a check must know is in here.

Units: `va`, `start` and `end` are byte addresses (`end` exclusive); `pfn`, `pindex` and `offset`
count pages; `idx` is a 64-bit word of a page. A map goes by the id of its pmap. A PTE is the
integer of `vkhost.pc64.pmap` (PTE_* bits and the frame number shifted by 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from vkprotocol.event_table import TABLE

NO_OBJECT: Final = -1  # `object` of a page that belongs to none
QUEUES: Final = ("none", "free", "inactive", "active", "cache", "hold")  # by number
ALL_VA: Final = -1  # `va` of a flush that empties the whole TLB

# What a field may hold. `id` names an object of the kernel, the same way in equivalent runs.
KINDS: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {"id": (int, str), "int": (int,), "str": (str,), "bool": (bool,), "bytes": (bytes,)}
)

# Each field has one meaning in every event that has it.
FIELDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "action": ("str", "what the scan did with the page"),
        "addr": ("int", "faulting byte address, 0 if none"),
        "backing": ("id", "the object it shadows"),
        "bits": ("int", "PTE bits"),
        "clear": ("int", "PG_* bits cleared"),
        "count": ("int", "how many there are now"),
        "cpu": ("int", "real CPU"),
        "content": ("bytes", "the bytes, little endian words"),
        "dst": ("int", "frame written"),
        "end": ("int", "byte address after the last"),
        "errno": ("int", "0 or a DragonFly errno"),
        "exclusive": ("bool", "exclusive (else shared)"),
        "gpa": ("int", "byte address in the memory image, which a guest takes for memory"),
        "gen": ("int", "ownership generation of the frame, +1 at every allocation"),
        "id": ("int", "vmspace id, opaque user pointer"),
        "idx": ("int", "64-bit word of the page"),
        "kind": ("str", "hard (exclusive) or soft (I/O)"),
        "leader": ("int", "frame the cluster was built around"),
        "vshift": ("int", "bits of index below this level: 36 master pde, 27, 18, 9, 0 leaf"),
        "lwp": ("id", "host thread of a guest vCPU"),
        "map": ("id", "vm_map, by the id of its pmap"),
        "maptype": ("str", "normal, vpagetable or uksmap"),
        "mask": ("int", "bit mask of CPUs; in a log as text, 0x..., when it has more than 64 bits"),
        "name": ("str", "name"),
        "new": ("int", "value after"),
        "object": ("id", "vm_object; -1 for none"),
        "offset": ("int", "first pindex"),
        "ok": ("bool", "the compare-and-set succeeded"),
        "old": ("int", "value before"),
        "page": ("int", "which of the pages that a table has been in, from 1 on"),
        "pages": ("int", "pages"),
        "pass": ("int", "passes in a row that left a shortage"),
        "pfn": ("int", "physical frame number"),
        "pindex": ("int", "page number in the object"),
        "pmap": ("id", "pmap"),
        "proc": ("id", "host process, such as a vkernel"),
        "prot": ("int", "PROT_* bits"),
        "reason": ("str", "why"),
        "refs": ("int", "references now"),
        "result": ("str", "KERN_* result"),
        "rip": ("int", "byte address of an instruction"),
        "set": ("int", "PG_* bits set"),
        "shortage": ("int", "pages missing from the paging target"),
        "size": ("int", "size in pages"),
        "slot": ("int", "page table of a second stage, by its 2 MB of the image"),
        "src": ("int", "frame read"),
        "start": ("int", "first byte address"),
        "text": ("str", "message"),
        "trapno": ("int", "trap number; 0 for a signal or the end of the budget"),
        "type": ("str", "type"),
        "va": ("int", "virtual byte address"),
        "value": ("int", "value"),
        "who": ("str", "program: a host process, or host process/guest process"),
        "why": ("str", "reason, one word"),
    }
)


class Field(NamedTuple):
    """A positional argument of an event."""

    name: str
    kind: str  # a key of KINDS
    meaning: str


class Event(NamedTuple):
    """One kind of thing that happens."""

    name: str
    fields: tuple[Field, ...]
    meaning: str
    level: str  # debug, info, warning or error
    counterpart: str  # where DragonFly does it, file:function


def _field(word: str) -> Field:
    """`va`, `addr=faulting_byte_address` or `old=queue_before:str`."""
    name, _, meaning = word.partition("=")
    meaning, _, kind = meaning.partition(":")
    usual = FIELDS.get(name, ("", ""))
    return Field(name, kind or usual[0], meaning.replace("_", " ") or usual[1])


def _events(table: str) -> Iterable[Event]:
    lines = iter(table.strip().splitlines())
    for head, meaning, counterpart in zip(lines, lines, lines, strict=True):
        level, name, *fields = head.split()
        yield Event(name, tuple(map(_field, fields)), meaning.strip(), level, counterpart.strip())


EVENTS: Final[Mapping[str, Event]] = MappingProxyType({e.name: e for e in _events(TABLE)})


def validate(name: str, args: tuple[Any, ...]) -> str | None:
    """What is wrong with this event, in one line; None when nothing is."""
    event = EVENTS.get(name)
    if event is None:
        return f"{name}: no such event"
    if len(args) != len(event.fields):
        wanted = " ".join(field.name for field in event.fields)
        return f"{name}: {len(args)} fields, not {len(event.fields)} ({wanted})"
    for field, value in zip(event.fields, args, strict=True):
        kinds = KINDS[field.kind]
        # bool is an int to isinstance, but not to a reader of the log.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            return f"{name}: {field.name} is {value!r}, not {field.kind}"
    return None


def record(name: str, args: tuple[Any, ...]) -> dict[str, Any]:
    """The fields of an event by name, as a log line has them."""
    return {f.name: value for f, value in zip(EVENTS[name].fields, args, strict=True)}
