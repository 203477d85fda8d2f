"""An event as a kernel developer says it: `pmap_enter 0x500000 -> page 12 RW A M`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from vkprotocol.events import ALL_VA, EVENTS, QUEUES
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vpte import vpte_text

from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_NX, PTE_RW, PTE_V, PTE_W, pte_pfn
from vkhost.vm import vm_page

Event = dict[str, Any]

# V is what makes it a PTE, U and MANAGED are in all of them: neither says anything.
PTE_BITS: Final = (
    (PTE_RW, "RW"), (PTE_A, "A"), (PTE_M, "M"), (PTE_NX, "NX"), (PTE_W, "W"),
)  # fmt: skip
PG_BITS: Final = tuple(
    (bit, name.removeprefix("PG_")) for name, bit in vars(vm_page).items() if name.startswith("PG_")
)
# Fields that read better in hexadecimal.
HEX: Final = frozenset({"va", "gpa", "start", "end", "addr", "bits", "mask", "set", "clear"})
_WORDS: Final = frozenset({"value", "old", "new"})


def bits_text(bits: int, names: tuple[tuple[int, str], ...]) -> str:
    """`MAPPED|WRITEABLE`; bits without a name as a number."""
    words = [name for bit, name in names if bits & bit]
    rest = bits & ~sum(bit for bit, _ in names)
    if rest:
        words.append(hex(rest))
    return "|".join(words) or "0"


def pte_frame(pte: int) -> int | None:
    """The frame a host PTE maps, None when it is not valid."""
    return pte_pfn(pte) if pte & PTE_V else None


def pte_text(pte: int) -> str:
    """`page 12 RW A M`, `-` for an invalid one."""
    pfn = pte_frame(pte)
    if pfn is None:
        return "-"
    return " ".join([f"page {pfn}", *(name for bit, name in PTE_BITS if pte & bit)])


def queue_text(queue: int | str) -> str:
    """PQ_ACTIVE is `active`."""
    return QUEUES[queue] if isinstance(queue, int) else queue


def value_text(field: str, value: Any) -> str:
    """A field's value as the log commands print it."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    if field in HEX or (field in _WORDS and value > 0xFFF):
        return hex(value)
    return str(value)


def span(event: Event) -> str:
    """The range of an event; the usual one page goes by its address."""
    start, end = event["start"], event["end"]
    return f"{start:#x}" if end - start == PAGE_SIZE else f"{start:#x}-{end:#x}"


def _pte_write(event: Event) -> str:
    old, new, va = event["old"], event["new"], f"{event['va']:#x}"
    why, pmap = event["why"], event["pmap"]
    gone, come = pte_frame(old), pte_frame(new)
    if come is None:
        return f"pte {va}@{pmap} cleared ({why}), was {pte_text(old)}"
    if gone == come:
        return f"pte {va}@{pmap} now {pte_text(new)} ({why})"
    return f"pte {va}@{pmap} -> {pte_text(new)} ({why})"


def _flags(event: Event) -> str:
    parts = [f"+{name}" for name in bits_text(event["set"], PG_BITS).split("|") if event["set"]]
    if event["clear"]:
        parts += [f"-{name}" for name in bits_text(event["clear"], PG_BITS).split("|")]
    return f"page {event['pfn']} {' '.join(parts) or 'flags unchanged'}"


def _flush(event: Event) -> str:
    what = "all" if event["va"] == ALL_VA else f"{event['va']:#x}"
    return f"TLB{event['cpu']} flush {what}"


def _walk(event: Event) -> str:
    value = vpte_text(event["value"])
    if event["pfn"] < 0:
        return f"walk master pde: {value}"
    vshift = event["vshift"]
    level = "leaf" if vshift == 0 else f"level {vshift}"
    return f"walk {level}: {value} at page {event['pfn']}[{event['idx']}]"


def _mem(verb: str) -> Callable[[Event], str]:
    def narrate(event: Event) -> str:
        outcome = " failed" if event.get("ok") is False else ""
        return (
            f"{verb} {event['va']:#x} (page {event['pfn']}[{event['idx']}])"
            f" {value_text('value', event['value'])}{outcome}"
        )

    return narrate


_SPECIAL: Final[dict[str, Callable[[Event], str]]] = {
    "pte.write": _pte_write,
    "page.flags": _flags,
    "page.queue": lambda e: f"page {e['pfn']} {queue_text(e['old'])} -> {queue_text(e['new'])}",
    "tlb.flush": _flush,
    "mem.load": _mem("load"),
    "mem.store": _mem("store"),
    "mem.cmpset": _mem("cmpset"),
    "mem.emulate": _mem("emulate store"),
    "vpte.read": _walk,
    "vpte.am": lambda e: f"walk sets A/M: {vpte_text(e['new'])}",
    "ilock.wait": lambda e: f"ilock {span(e)} waits",
    "ilock.enter": lambda e: f"ilock {span(e)}",
    "ilock.exit": lambda e: f"ilock {span(e)} released",
    "inval.begin": lambda e: f"INVAL {span(e)}",
    "inval.end": lambda e: f"INVAL {span(e)} returns",
    "setmap.begin": lambda e: f"SETMAP {span(e)} {vpte_text(e['value'])}",
    "setmap.end": lambda e: f"SETMAP {span(e)} returns",
    "map.insert": lambda e: f"map {span(e)} {e['maptype']} {e['object']}+{e['offset']}",
    "map.root": lambda e: f"map {span(e)} walked from {vpte_text(e['value'])}",
    "map.remove": lambda e: f"unmap {span(e)}",
    "map.lock": lambda e: f"map {e['map']} locked {'exclusive' if e['exclusive'] else 'shared'}",
    "page.write": lambda e: f"page {e['pfn']} overwritten",
}
# The others: a sentence with the fields in it.
_PLAIN: Final = {
    "walk.begin": "CPU {cpu} walks for {va}",
    "walk.end": "CPU {cpu}'s walk for {va}: {why}",
    "page.alloc": "page {pfn} allocated for {object}+{pindex} (owner {gen})",
    "page.free": "page {pfn} freed (owner {gen})",
    "page.dirty": "page {pfn} dirty={value}",
    "page.discard": "page {pfn} content discarded",
    "page.busy": "page {pfn} busy ({kind})",
    "page.unbusy": "page {pfn} unbusy ({kind})",
    "page.wire": "page {pfn} wire_count {count}",
    "page.hold": "page {pfn} hold_count {count}",
    "page.zero": "page {pfn} zeroed",
    "page.copy": "page {src} copied to page {dst}",
    "pager.get": "page {pfn} <- pager {object}+{pindex}",
    "pager.put": "page {pfn} -> pager {object}+{pindex}",
    "ept.link": "second-stage table {slot}@{pmap} linked (page {page})",
    "ept.read": "CPU {cpu} reads second-stage table {slot}@{pmap} (page {page})",
    "ept.free": "second-stage table {slot}@{pmap} freed (page {page})",
    "tlb.fill": "TLB{cpu} {va} -> page {pfn}",
    "ipi.send": "IPI to cpu {cpu} for {va}@{pmap}",
    "ipi.ack": "IPI acknowledged by cpu {cpu}",
    "fault.begin": "vm_fault {va}@{map} {type}",
    "fault.retry": "vm_fault {va} again: {why}",
    "fault.end": "vm_fault {va}@{map} {result}",
    "map.lock.wait": "map {map} lock waits",
    "map.unlock": "map {map} unlocked",
    "cpu.pmap": "cpu {cpu} %cr3 <- pmap {pmap}",
    "cpu.active": "pmap {pmap} pm_active {mask}",
    "vmspace.create": "vmspace_create {id} -> pmap {pmap}",
    "vmspace.destroy": "vmspace_destroy {id} errno {errno}",
    "run.enter": "RUN vmspace {id}",
    "run.exit": "leaves vmspace {id} trap {trapno} addr {addr}",
    "syscall.begin": "{name}()",
    "syscall.end": "{name}() errno {errno} value {value}",
    "pageout.pass": "pageout pass {pass} shortage {shortage}",
    "pageout.page": "pageout {action} page {pfn}",
    "pageout.launder": "pageout launders page {pfn} among {count}, led by page {leader}",
    "guest.alloc": "guest frame {pindex} allocated for {name}",
    "guest.free": "guest frame {pindex} freed",
    "guest.clean": "guest relies on {va} being clean",
    "panic": "panic: {text}",
    "console": "{text}",
    "log.dropped": "{count} events are not in the log, seq {first} to {last}",
}


class _Texts(dict[str, str]):
    def __missing__(self, field: str) -> str:
        return "?"


def narrate(event: Event) -> str:
    """The event in words; its fields one by one when it is not of the table, or not complete."""
    name = event["event"]
    special = _SPECIAL.get(name)
    if special is not None:
        try:
            return special(event)
        except (KeyError, TypeError, ValueError):
            return fields_text(event)
    plain = _PLAIN.get(name)
    if plain is None:
        return fields_text(event)
    return plain.format_map(_Texts({f: value_text(f, v) for f, v in event.items()}))


_HEADER: Final = frozenset(
    {
        "seq",
        "t",
        "ts",
        "run",
        "step",
        "actor",
        "cpu",
        "guest",
        "event",
        "level",
        "vc",
        "function",
        "where",
    }
)


def own_fields(event: Event) -> dict[str, Any]:
    """The event's fields without those every line has, unless the event has one of that name."""
    known = EVENTS.get(event["event"])
    own = {field.name for field in known.fields} if known is not None else frozenset()
    return {f: value for f, value in event.items() if f not in _HEADER or f in own}


def fields_text(event: Event) -> str:
    pairs = (f"{field}={value_text(field, value)}" for field, value in own_fields(event).items())
    return " ".join([event["event"], *pairs])
