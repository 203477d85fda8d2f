"""What a guest does: its user code, its kernel's edits and calls, and faults on its behalf."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from vkprotocol.effects import is_true
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP
from vkprotocol.param import PAGE_SIZE

from vkemu.litmus.actor import FAULT_TYPES, Actor, accessed, verb
from vkemu.litmus.file import vpte_bits
from vkemu.litmus.machine import fault as take_fault
from vkhost.pc64.pmap import CPULOCK_EXCL
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.pc64.pmap_switch import swtch_in as switch_in
from vkhost.pc64.pmap_switch import swtch_out as switch_out
from vkhost.vm.vm import KERN_FAILURE
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_mmap import kern_mcontrol

ANY = "user guest fault pageout host"

# Order between threads of a test, where the window is about something else; a guest's own locks.


@verb(ANY, "n")
async def post(me: Actor, event: int) -> int:
    await me.machine.event(event).store(1)
    return 0


@verb(ANY, "n")
async def await_(me: Actor, event: int) -> int:
    """Until it has been posted."""
    await me.machine.event(event).wait(is_true)
    return 0


@verb("user guest", "n")
async def lock(me: Actor, which: int) -> int:
    """A spinlock of the guest kernel's, as vm_page's."""
    await me.machine.guest_lock(which).acquire()
    return 0


@verb("user guest", "n")
async def unlock(me: Actor, which: int) -> int:
    await me.machine.guest_lock(which).release()
    return 0


# User code.


@verb("user", "v?n")
async def load(me: Actor, va: Any, idx: int = 0) -> int:
    return await accessed(me.cpu.load(me.va(va) + idx * 8))


@verb("user", "vn?n")
async def store(me: Actor, va: Any, value: int, idx: int = 0) -> int:
    return await accessed(me.cpu.store(me.va(va) + idx * 8, value))


@verb("user", "v")
async def fetch(me: Actor, va: Any) -> int:
    return await accessed(me.cpu.fetch(me.va(va)))


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
        return await accessed(access)
    finally:
        del me.cpu.take_fault


async def _refuse(*_: Any) -> int:
    return KERN_FAILURE


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


# VMM mode: the vkernel runs on the hardware's own terms, and flushes what it can reach.


@verb("guest", "v")
async def invlpg(me: Actor, va: Any) -> int:
    """cpu_invlpg: the page leaves the TLB of this vCPU."""
    await me.cpu.tlb.flush(me.machine.guest.pmap, me.va(va))
    return 0


@verb("guest", "")
async def alone(me: Actor) -> bool:
    """Whether no other vCPU runs the guest's process: its pm_active, without the lock of it."""
    mask: int = await me.machine.guest.pmap.pm_active.load()
    return not mask & ~CPULOCK_EXCL & ~me.cpu.mask


@verb("guest host", "v?n")
async def mcontrol(me: Actor, va: Any, pages: int = 1) -> int:
    """vmspace_mcontrol(INVAL), which looks at the range first; its errno."""
    start = me.va(va)
    return await kern_mcontrol(me.machine.guest, start, pages * PAGE_SIZE, MADV_INVAL, 0)


@verb("guest host", "vnn")
async def setmap(me: Actor, va: Any, pages: int, master_pde: int) -> int:
    """MADV_SETMAP; its errno."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_madvise(vm_map, start, start + pages * PAGE_SIZE, MADV_SETMAP, master_pde)


@verb("guest", "pn")
async def dload(me: Actor, page: Any, idx: int) -> int:
    """The guest kernel reads a word of a page through its DMAP."""
    return await accessed(me.cpu.load(me.dmap(page, idx)))


@verb("guest", "pnn")
async def dstore(me: Actor, page: Any, idx: int, value: int) -> int:
    return await accessed(me.cpu.store(me.dmap(page, idx), value))


@verb("guest", "vp")
async def mmap(me: Actor, va: Any, page: Any) -> int:
    """vmspace_mmap, FIXED, of one page of the image: a NORMAL entry where the guest had its own."""
    await me.machine.map_page(me.va(va), me.machine.pindex(page))
    return 0


@verb("guest host", "v?n")
async def munmap(me: Actor, va: Any, pages: int = 1) -> int:
    start = me.va(va)
    await vm_map_remove(me.machine.guest.vm_map, start, start + pages * PAGE_SIZE)
    return 0


# Host threads.


@verb("fault guest", "va", *FAULT_TYPES)
async def fault(me: Actor, va: Any, kind: str) -> int:
    """vm_fault of the guest process; its KERN_* result."""
    machine = me.machine
    return await take_fault(
        machine.lwps.get(me.cpu.id), machine.guest, me.va(va), FAULT_TYPES[kind]
    )


@verb("host pageout", "v?n")
async def unmap_ptes(me: Actor, va: Any, pages: int = 1) -> int:
    """pmap_remove alone, as the host's own munmap of a range ends in."""
    start = me.va(va)
    await pmap_remove(me.machine.guest.pmap, start, start + pages * PAGE_SIZE)
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
