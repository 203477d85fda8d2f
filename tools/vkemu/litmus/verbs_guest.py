"""What a guest does: its user code, its kernel's edits and calls, and faults on its behalf."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from vkprotocol.effects import curthread, is_true
from vkprotocol.insn import NREGS, Machine, Trapframe
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vkernel import T_FAST_SYSCALL

from vkemu.litmus.actor import FAULT_TYPES, FAULTED, Actor, FaultKind, accessed, verb
from vkemu.litmus.machine import fault as take_fault
from vkemu.litmus.operand import (
    Bits,
    EventNo,
    Index,
    Level,
    LockNo,
    Page,
    Pages,
    Va,
    Vpte,
    VptePage,
    Word,
)
from vkemu.litmus.tables import vpte_bits
from vkhost.pc64.pmap import CPULOCK_EXCL
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.pc64.pmap_switch import swtch_in as switch_in
from vkhost.pc64.pmap_switch import swtch_out as switch_out
from vkhost.pc64.user_code import Interrupted, Trap
from vkhost.vm.vm import KERN_FAILURE
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_mmap import kern_mcontrol

ANY = "user guest fault pageout host"
RAX, RDI = 0, 7

# Order between threads of a test, where the window is about something else; a guest's own locks.


@verb(ANY)
async def post(me: Actor, event: EventNo) -> int:
    """The event has happened: whoever awaits it goes on."""
    await me.machine.event(event).store(1)
    return 0


@verb(ANY)
async def await_(me: Actor, event: EventNo) -> int:
    """Until it has been posted."""
    await me.machine.event(event).wait(is_true)
    return 0


@verb("user guest")
async def lock(me: Actor, which: LockNo) -> int:
    """A spinlock of the guest kernel's, as vm_page's."""
    taken = me.machine.guest_lock(which)
    if taken.state == curthread().tid:
        raise me.misused("it has the lock already, expected an `unlock` before")
    await taken.acquire()
    return 0


@verb("user guest")
async def unlock(me: Actor, which: LockNo) -> int:
    """The lock of the guest, given up."""
    taken = me.machine.guest_lock(which)
    if taken.state != curthread().tid:
        raise me.misused("it has not got the lock, expected a `lock` before")
    await taken.release()
    return 0


# User code.


@verb("user")
async def load(me: Actor, va: Va, idx: Index = 0) -> int:
    """The program reads a word; -1 if the access faults and the guest has no page there. A fault
    that the host resolves is taken: what is stale in TLB or PTE is asked by `peek`."""
    return await accessed(me.running.load(me.va(va) + idx * 8))


@verb("user")
async def store(me: Actor, va: Va, value: Word, idx: Index = 0) -> int:
    """The program writes a word, on the terms of `load`; 0 or -1."""
    return await accessed(me.running.store(me.va(va) + idx * 8, value))


@verb("user")
async def fetch(me: Actor, va: Va) -> int:
    """The program fetches an instruction there; -1 if the access faults."""
    return await accessed(me.running.fetch(me.va(va)))


@verb("user")
async def peek(me: Actor, va: Va, idx: Index = 0) -> int:
    """A load if TLB or host PTE permit it; else -1: the thread would fault, and leaves it at that.
    It reads through a translation that was there, and never makes one."""
    return await _unfaulted(me, me.running.load(me.va(va) + idx * 8))


@verb("user")
async def poke(me: Actor, va: Va, value: Word, idx: Index = 0) -> int:
    """A store on the same terms; 0 or -1."""
    return await _unfaulted(me, me.running.store(me.va(va) + idx * 8, value))


async def _unfaulted(me: Actor, access: Awaitable[Any]) -> int:
    me.cpu.take_fault = _refuse  # type: ignore[assignment, method-assign]
    try:
        return await accessed(access)
    finally:
        del me.cpu.take_fault


async def _refuse(*_: Any) -> int:
    return KERN_FAILURE


@verb("user")
async def execute(me: Actor, va: Va, argument: Word = 0) -> int:
    """Machine code at va, with `argument` in rdi, to its system call; rax then. It needs the
    extra x86. Any other trap leaves what a fault does."""
    from vkhost.pc64.machine_code import MachineCode

    regs = (0,) * RDI + (argument,) + (0,) * (NREGS - RDI - 1)
    frame = Trapframe(regs=regs, machine=Machine(rip=me.va(va)))
    lwp = me.running.lwp
    assert lwp is not None
    code = MachineCode(lwp, frame, me.machine.kernel.config.run_budget)
    try:
        while True:
            await code.step(lwp)
    except Trap as trap:
        return code.frame(trap).regs[RAX] if trap.trapno == T_FAST_SYSCALL else FAULTED
    except Interrupted:
        return FAULTED


@verb("user")
async def try_execute(me: Actor, va: Va, argument: Word = 0) -> int:
    """The same on the terms of `peek`: it leaves a fault at that."""
    return await _unfaulted(me, execute(me, va, argument))


# The guest kernel. Every edit is one locked instruction on the image, unseen by the host.


@verb("guest")
async def vread(me: Actor, va: Vpte, level: Level = 0) -> int:
    """The VPTE of an address, or the one that leads to its table at that level."""
    return int(await me.cpu.load(me.vpte(va, level)))


@verb("guest")
async def vzero(me: Actor, va: Vpte, level: Level = 0) -> int:
    """Swap the VPTE to 0; what it was."""
    return int(await me.cpu.swap(me.vpte(va, level), 0))


@verb("guest")
async def vset(me: Actor, va: Vpte, page: VptePage, bits: Bits, level: Level = 0) -> int:
    """Swap in a VPTE for `page`; what it was."""
    frame = page if isinstance(page, int) else me.machine.litmus.frames[page]
    return int(await me.cpu.swap(me.vpte(va, level), frame << 12 | vpte_bits(bits, "")))


@verb("guest")
async def vclear(me: Actor, va: Vpte, bits: Bits, level: Level = 0) -> int:
    """Clear bits of the VPTE; what it was."""
    return int(await me.cpu.rmw(me.vpte(va, level), "andn", vpte_bits(bits, "")))


@verb("guest host")
async def inval(me: Actor, va: Va, pages: Pages = 1) -> int:
    """MADV_INVAL of `pages` pages from va on; its errno."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_madvise(vm_map, start, start + pages * PAGE_SIZE, MADV_INVAL)


# VMM mode: the vkernel runs on the hardware's own terms, and flushes what it can reach.


@verb("guest")
async def invlpg(me: Actor, va: Va) -> int:
    """cpu_invlpg: the page leaves the TLB of this vCPU."""
    await me.cpu.tlb.flush(me.machine.guest.pmap, me.va(va))
    return 0


@verb("guest")
async def alone(me: Actor) -> bool:
    """Whether no other vCPU runs the guest's process: its pm_active, without the lock of it."""
    mask: int = await me.machine.guest.pmap.pm_active.load()
    return not mask & ~CPULOCK_EXCL & ~me.cpu.mask


@verb("guest host")
async def mcontrol(me: Actor, va: Va, pages: Pages = 1, idx: Index = 0) -> int:
    """vmspace_mcontrol(INVAL), which looks at the range first, from that word of a page on; its
    errno."""
    start = me.va(va) + 8 * idx
    return await kern_mcontrol(me.machine.guest, start, pages * PAGE_SIZE, MADV_INVAL, 0)


@verb("guest host")
async def setmap(me: Actor, va: Va, pages: Pages, master_pde: Word) -> int:
    """MADV_SETMAP; its errno."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_madvise(vm_map, start, start + pages * PAGE_SIZE, MADV_SETMAP, master_pde)


@verb("guest")
async def dload(me: Actor, page: Page, idx: Index) -> int:
    """The guest kernel reads a word of a page through its DMAP."""
    return await accessed(me.cpu.load(me.dmap(page, idx)))


@verb("guest")
async def dstore(me: Actor, page: Page, idx: Index, value: Word) -> int:
    """The vkernel writes a word of a page through its DMAP."""
    return await accessed(me.cpu.store(me.dmap(page, idx), value))


@verb("guest")
async def mmap(me: Actor, va: Va, page: Page) -> int:
    """vmspace_mmap, FIXED, of one page of the image: a NORMAL entry where the guest had its own;
    its KERN_* result."""
    return await me.machine.map_page(me.va(va), me.machine.pindex(page))


@verb("guest host")
async def munmap(me: Actor, va: Va, pages: Pages = 1) -> int:
    """vm_map_remove of a range of the guest process."""
    start = me.va(va)
    await vm_map_remove(me.machine.guest.vm_map, start, start + pages * PAGE_SIZE)
    return 0


# Host threads.


@verb("fault guest")
async def fault(me: Actor, va: Va, kind: FaultKind) -> int:
    """vm_fault of the guest process; its KERN_* result."""
    machine = me.machine
    return await take_fault(
        machine.lwps.get(me.cpu.id), machine.guest, me.va(va), FAULT_TYPES[kind]
    )


@verb("host pageout")
async def unmap_ptes(me: Actor, va: Va, pages: Pages = 1) -> int:
    """pmap_remove alone, as the host's own munmap of a range ends in."""
    start = me.va(va)
    await pmap_remove(me.machine.guest.pmap, start, start + pages * PAGE_SIZE)
    return 0


@verb("user")
async def swtch_out(me: Actor) -> int:
    """The CPU goes idle: another thread's turn, or none's."""
    if me.cpu.lwp is None:
        raise me.misused("the CPU is idle already, expected a `swtch_in` before")
    await switch_out(me.machine.lwps[me.cpu.id])
    return 0


@verb("user")
async def swtch_in(me: Actor) -> int:
    """And this thread runs on it again."""
    if me.cpu.lwp is not None:
        raise me.misused("it runs on the CPU, expected a `swtch_out` before")
    await switch_in(me.machine.lwps[me.cpu.id])
    return 0
