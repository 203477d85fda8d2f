"""What a statement of a litmus thread does: the kernel's own functions, by short names.

`kinds` says which threads may use a verb: `user` code runs in the guest process's address space,
`guest` is the vkernel on its own CPU (its edits of VPTEs are stores through the DMAP), `fault` a
fault worker, `pageout` the daemon's thread, and `host` any other thread of the host kernel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from vkprotocol.effects import curthread
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP
from vkprotocol.param import PAGE_SIZE

from vkemu.litmus.file import Litmus, Program, vpte_bits
from vkemu.litmus.machine import DMAP, OTHER, OTHER_PAGES, Machine
from vkemu.litmus.statement import Statement
from vkemu.verdict import UsageError
from vkhost.cpu import Cpu, Fault
from vkhost.pmap_enter import pmap_enter
from vkhost.pmap_remove import pmap_remove
from vkhost.pmap_switch import swtch_in as switch_in
from vkhost.pmap_switch import swtch_out as switch_out
from vkhost.vm import (
    KERN_FAILURE,
    VM_PROT_EXECUTE,
    VM_PROT_NONE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm_fault import vm_fault
from vkhost.vm_map_delete import vm_map_remove
from vkhost.vm_map_madvise import vm_map_madvise
from vkhost.vm_object import vm_object_deallocate
from vkhost.vm_page import VM_PAGE_BITS_ALL, VmPage
from vkhost.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc, vm_page_free
from vkhost.vm_page_busy import vm_page_busy_try, vm_page_wakeup
from vkhost.vm_page_cache import vm_page_cache, vm_page_try_to_cache
from vkhost.vm_page_dirty import vm_page_dirty, vm_page_protect, vm_page_test_dirty
from vkhost.vm_page_lru import vm_page_activate, vm_page_deactivate
from vkhost.vm_page_queue import PQ_ACTIVE, PQ_INACTIVE
from vkhost.vm_pageout_active import Ageing
from vkhost.vm_pageout_active import _age as vm_pageout_age
from vkhost.vm_pageout_inactive import _flush_flags as vm_pageout_flush_flags
from vkhost.vm_pageout_page import Laundry, vm_pageout_page

FAULTED: Final = -1  # what a user access that the guest would see as T_PAGEFLT leaves
NO_PAGE: Final = -2  # what a page verb leaves when there is no such page, or it is busy
FAULT_TYPES: Final = {"r": VM_PROT_READ, "w": VM_PROT_WRITE, "x": VM_PROT_EXECUTE}
PROTS: Final = {"none": VM_PROT_NONE, "r": VM_PROT_READ}


@dataclass(slots=True)
class Actor:
    """A thread of the test as it runs."""

    machine: Machine
    program: Program
    cpu: Cpu

    def va(self, name: Any) -> int:
        return name if isinstance(name, int) else self.machine.litmus.file.va[name].va

    def dmap(self, page: Any, idx: int = 0) -> int:
        pindex = page if isinstance(page, int) else self.machine.litmus.frames[page]
        return DMAP + pindex * PAGE_SIZE + idx * 8

    def vpte(self, name: Any, level: int = 0) -> int:
        """Where the VPTE of an address is in the DMAP."""
        table, slot = self.machine.tables.slot(self.va(name), level)
        return DMAP + table * PAGE_SIZE + slot * 8


Verb = Callable[..., Awaitable[int | bool | None]]


@dataclass(frozen=True, slots=True)
class Entry:
    """`args` is one letter an argument: v va, p page, n number, b VPTE bits, l level, a one of
    `words`; what follows a `?` may be left out."""

    kinds: str
    args: str
    do: Verb
    words: tuple[str, ...] = ()


VERBS: Final[dict[str, Entry]] = {}
ANY: Final = "user guest fault pageout host"


def verb(kinds: str, args: str, *words: str) -> Callable[[Verb], Verb]:
    def register(do: Verb) -> Verb:
        VERBS[do.__name__.removesuffix("_")] = Entry(kinds, args, do, words)
        return do

    return register


# User code.


@verb("user", "v?n")
async def load(me: Actor, va: Any, idx: int = 0) -> int:
    return await _access(me.cpu.load(me.va(va) + idx * 8))


@verb("user", "vn?n")
async def store(me: Actor, va: Any, value: int, idx: int = 0) -> int:
    return await _access(me.cpu.store(me.va(va) + idx * 8, value))


@verb("user", "v")
async def fetch(me: Actor, va: Any) -> int:
    return await _access(me.cpu.fetch(me.va(va)))


@verb("user", "v?n")
async def peek(me: Actor, va: Any, idx: int = 0) -> int:
    """A load if TLB or host PTE permit it; else the thread would fault, and leaves it at that."""
    return await _unfaulted(me, me.cpu.load(me.va(va) + idx * 8))


@verb("user", "vn?n")
async def poke(me: Actor, va: Any, value: int, idx: int = 0) -> int:
    """A store on the same terms."""
    return await _unfaulted(me, me.cpu.store(me.va(va) + idx * 8, value))


async def _unfaulted(me: Actor, access: Awaitable[Any]) -> int:
    me.cpu.take_fault = _refuse  # type: ignore[assignment, method-assign]
    try:
        return await _access(access)
    finally:
        del me.cpu.take_fault


async def _refuse(*_: Any) -> int:
    return KERN_FAILURE


async def _access(access: Awaitable[Any]) -> int:
    try:
        value = await access
    except Fault:
        return FAULTED
    return 0 if value is None else int(value)


# The guest kernel. Every edit is one locked instruction on the image, unseen by the host.


@verb("guest", "v?l")
async def vread(me: Actor, va: Any, level: int = 0) -> int:
    return int(await me.cpu.load(me.vpte(va, level)))


@verb("guest", "v?l")
async def vzero(me: Actor, va: Any, level: int = 0) -> int:
    """Swap the VPTE to 0; what it was."""
    return int(await me.cpu.swap(me.vpte(va, level), 0))


@verb("guest", "vpb?l")
async def vset(me: Actor, va: Any, page: Any, bits: str, level: int = 0) -> int:
    """Swap in a VPTE for `page`; what it was."""
    frame = page if isinstance(page, int) else me.machine.litmus.frames[page]
    return int(await me.cpu.swap(me.vpte(va, level), frame << 12 | vpte_bits(bits, "")))


@verb("guest", "vb?l")
async def vclear(me: Actor, va: Any, bits: str, level: int = 0) -> int:
    """Clear bits of the VPTE; what it was."""
    return int(await me.cpu.rmw(me.vpte(va, level), "andn", vpte_bits(bits, "")))


@verb("guest host", "v?n")
async def inval(me: Actor, va: Any, pages: int = 1) -> int:
    """MADV_INVAL of `pages` pages from va on; its errno."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_madvise(vm_map, start, start + pages * PAGE_SIZE, MADV_INVAL)


@verb("guest host", "vnn")
async def setmap(me: Actor, va: Any, pages: int, master_pde: int) -> int:
    """MADV_SETMAP; its errno."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_madvise(vm_map, start, start + pages * PAGE_SIZE, MADV_SETMAP, master_pde)


@verb("guest", "pn")
async def dload(me: Actor, page: Any, idx: int) -> int:
    """The guest kernel reads a word of a page through its DMAP."""
    return await _access(me.cpu.load(me.dmap(page, idx)))


@verb("guest", "pnn")
async def dstore(me: Actor, page: Any, idx: int, value: int) -> int:
    return await _access(me.cpu.store(me.dmap(page, idx), value))


@verb("guest host", "v?n")
async def munmap(me: Actor, va: Any, pages: int = 1) -> int:
    start = me.va(va)
    await vm_map_remove(me.machine.guest.vm_map, start, start + pages * PAGE_SIZE)
    return 0


# Host threads.


@verb("fault guest", "va", *FAULT_TYPES)
async def fault(me: Actor, va: Any, kind: str) -> int:
    """vm_fault of the guest process; its KERN_* result."""
    return await vm_fault(me.machine.guest.vm_map, me.va(va), FAULT_TYPES[kind])


@verb("host pageout", "v?n")
async def unmap_ptes(me: Actor, va: Any, pages: int = 1) -> int:
    """pmap_remove alone, as the host's own munmap of a range ends in."""
    start = me.va(va)
    await pmap_remove(me.machine.guest.pmap, start, start + pages * PAGE_SIZE)
    return 0


async def _busied(me: Actor, page: Any) -> VmPage | None:
    m = me.machine.page(page)
    if m is None or not await vm_page_busy_try(m):
        return None
    if me.machine.page(page) is m:
        return m
    await vm_page_wakeup(m)
    return None


@verb("host pageout", "p")
async def deactivate(me: Actor, page: Any) -> int:
    """What the active scan does to a page that has declined: to PQ_INACTIVE, mappings in place."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_deactivate(m)
    await vm_page_wakeup(m)
    return 0


@verb("host pageout", "p?n")
async def scan_active(me: Actor, page: Any, short: int = 1) -> int:
    """The active scan meets the page when there is a shortage (or none); 1 if it declined it."""
    m = await _busied(me, page)
    if m is None or m.queue != PQ_ACTIVE:
        return await _give_up(m)
    age = Ageing(me.machine.kernel, 0, short, 1, isep=False)
    m.act_count = 0
    await vm_pageout_age(age, m)
    return age.delta


@verb("host pageout", "p?n")
async def scan_inactive(me: Actor, page: Any, passes: int = 0) -> int:
    """The inactive scan meets the page (vm_pageout_page); how many pages it freed or wrote."""
    m = await _busied(me, page)
    if m is None or m.queue != PQ_INACTIVE:
        return await _give_up(m)
    kernel = me.machine.kernel
    flags = await vm_pageout_flush_flags(kernel, m)
    return await vm_pageout_page(kernel, m, Laundry(max_launder=16), passes, flags)


async def _give_up(m: VmPage | None) -> int:
    """The page is busy, gone, or on another queue: a scan passes it by."""
    if m is not None:
        await vm_page_wakeup(m)
    return NO_PAGE


@verb("host pageout", "pa", *PROTS)
async def protect(me: Actor, page: Any, prot: str) -> int:
    """vm_page_protect."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_protect(m, PROTS[prot])
    await vm_page_wakeup(m)
    return 0


@verb("host pageout", "p")
async def test_dirty(me: Actor, page: Any) -> int:
    """vm_page_test_dirty; whether the page is dirty."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_test_dirty(m)
    dirty = int(await m.dirty.load() != 0)
    await vm_page_wakeup(m)
    return dirty


@verb("host pageout", "p")
async def referenced(me: Actor, page: Any) -> int:
    """pmap_ts_referenced."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    count = await me.machine.kernel.rmap.ts_referenced(m)
    await vm_page_wakeup(m)
    return count


@verb("host pageout", "p")
async def cache(me: Actor, page: Any) -> int:
    """vm_page_cache, which unmaps and looks again."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_cache(m)
    return 0


@verb("host pageout", "p")
async def try_to_cache(me: Actor, page: Any) -> bool:
    """vm_page_try_to_cache, as buffers are released: whether it was."""
    m = me.machine.page(page)
    return m is not None and await vm_page_try_to_cache(m)


@verb("host pageout", "p")
async def free(me: Actor, page: Any) -> int:
    """Truncation of one page: unmap and free."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_protect(m, VM_PROT_NONE)
    await vm_page_free(m)
    return 0


@verb("host pageout", "n")
async def reuse(me: Actor, value: int) -> int:
    """Another process gets a page, maps it and writes `value` to it: the next owner of a frame.

    What vm_fault does for it, without the steps that are another window's business.
    """
    machine = me.machine
    made = machine.other_object
    pindex = made.resident_page_count
    async with made.token:
        m = await vm_page_alloc(made, pindex, VM_ALLOC_NORMAL)
    if m is None:
        return NO_PAGE
    await m.frame.zero()
    m.valid = VM_PAGE_BITS_ALL
    va = OTHER + pindex * PAGE_SIZE
    await pmap_enter(
        machine.other.pmap, va, m, VM_PROT_READ | VM_PROT_WRITE, False,
        machine.other.vm_map.entries[0],
    )  # fmt: skip
    await vm_page_dirty(m)
    await m.frame.store(0, value)
    me.machine.kernel.emit("page.write", m.pfn, m.frame.words.tobytes())
    await vm_page_activate(m)
    await vm_page_wakeup(m)
    return m.pfn


@verb("host pageout", "")
async def exit_other(me: Actor) -> int:
    """The other process exits: what it had is free again."""
    machine = me.machine
    end = OTHER + OTHER_PAGES * PAGE_SIZE
    await vm_map_remove(machine.other.vm_map, OTHER, end)
    await vm_object_deallocate(machine.other_object)
    return 0


@verb("user", "")
async def swtch_out(me: Actor) -> int:
    """The CPU goes idle: another thread's turn, or none's."""
    await switch_out(me.machine.lwps[me.cpu.id])
    return 0


@verb("user", "")
async def swtch_in(me: Actor) -> int:
    """And this thread runs on it again."""
    await switch_in(me.machine.lwps[me.cpu.id])
    return 0


# Running, and checking what was written.


async def run_program(machine: Machine, program: Program) -> None:
    """The body of a thread of the test."""
    kernel = machine.kernel
    me = Actor(machine, program, kernel.cpus[program.cpu])
    if program.kind not in ("pageout", "host"):
        kernel.bind(curthread().tid, me.cpu)
    registers = machine.registers[program.name]
    for statement in program.run:
        if statement.when is None or statement.when.holds(registers.get):
            value = await VERBS[statement.verb].do(me, *statement.args)
            if statement.target is not None and value is not None:
                registers[statement.target] = int(value)


def check_statements(litmus: Litmus) -> None:
    """UsageError for the first statement that its thread cannot say."""
    for i, program in enumerate(litmus.threads):
        for j, statement in enumerate(program.run):
            _check(litmus, program, statement, f"{litmus.where}:thread[{i}].run[{j}]")


def _check(litmus: Litmus, program: Program, statement: Statement, where: str) -> None:
    entry = VERBS.get(statement.verb)
    if entry is None or program.kind not in entry.kinds.split():
        known = ", ".join(n for n, e in VERBS.items() if program.kind in e.kinds.split())
        raise UsageError(
            f"{where}: a {program.kind} thread cannot {statement.verb!r}, expected one of {known}"
        )
    needed = entry.args.partition("?")[0]
    letters = entry.args.replace("?", "")
    if not len(needed) <= len(statement.args) <= len(letters):
        raise UsageError(
            f"{where}: {statement.text!r} has {len(statement.args)} arguments, expected "
            f"{len(needed)}" + (f" to {len(letters)}" if letters != needed else "")
        )
    for letter, arg in zip(letters, statement.args, strict=False):
        expected = _mistake(litmus, entry, letter, arg)
        if expected:
            raise UsageError(f"{where}: {arg!r} in {statement.text!r}, expected {expected}")
    for atom in statement.when.atoms if statement.when else ():
        if atom not in {s.target for s in program.run}:
            raise UsageError(f"{where}: {atom!r} is no register of {program.name}")


def _mistake(litmus: Litmus, entry: Entry, letter: str, arg: int | str) -> str:
    """What was expected where `arg` stands, or nothing."""
    match letter:
        case "v":
            return "" if isinstance(arg, int) or arg in litmus.file.va else "a [va.NAME]"
        case "p":
            return "" if isinstance(arg, int) or arg in litmus.file.page else "a [page.NAME]"
        case "n":
            return "" if isinstance(arg, int) else "a number"
        case "l":
            return "" if arg in (0, 9, 18, 27) else "a level: 0, 9, 18 or 27"
        case "a":
            return "" if arg in entry.words else "one of " + ", ".join(entry.words)
        case _:
            try:
                vpte_bits(str(arg), "")
            except UsageError:
                return "VPTE bits, e.g. V|RW|U|A|M"
            return ""
