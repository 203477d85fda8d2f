"""Small runs of the real host, each around one race. A scenario builds a Host ready to run."""

from __future__ import annotations

from typing import Any

from vkprotocol.param import PAGE_SIZE
from vkprotocol.vpte import VPTE_M, VPTE_NX

from tests.oracle.host import DMAP, LEAF_BITS, SPAN, TABLE_BITS, Guest, Host, drive
from vkhost.pc64.cpu import Cpu, Fault
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.pc64.pmap_switch import pmap_setlwpvm, swtch_in, swtch_out
from vkhost.vm.vm import VM_MAPTYPE_NORMAL, VM_PROT_READ
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_page import PG_REFERENCED, VmPage
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_wait
from vkhost.vm.vm_page_dirty import vm_page_flag_clear
from vkhost.vm.vm_page_lru import vm_page_deactivate
from vkhost.vm.vm_pageout_clean import OBJPC_TRY_TO_CACHE, vm_pageout_flush
from vkhost.vm.vm_pageout_page import Laundry, vm_pageout_page

QUIET: dict[str, Any] = {"fault_workers": False, "ipi_threads": False}


async def touch(cpu: Cpu, va: int, value: int | None = None) -> None:
    """A load, or a store; a fault the guest would have to handle is none of our business."""
    try:
        if value is None:
            await cpu.load(va)
        else:
            await cpu.store(va, value)
    except Fault:
        pass


def warm(guest: Guest, kernel_cpu: Cpu, pages: int) -> None:
    """The vkernel has used its leaf table and the data pages through its DMAP, and the guest some
    address of the same tables."""
    for pindex in range(guest.data - 1, guest.data + pages):
        drive(kernel_cpu.store(guest.dmap(pindex, 511), 1))
    drive(vm_fault(guest.vmspace.vm_map, SPAN - PAGE_SIZE, VM_PROT_READ))


async def replace(guest: Guest, cpu: Cpu, i: int, pindex: int) -> None:
    """pmap_enter of the guest: VPTE to 0, INVAL, the old frame freed, the new VPTE."""
    old = await cpu.swap(guest.dmap(3, i), 0)
    await guest.inval(i * PAGE_SIZE, (i + 1) * PAGE_SIZE)
    emit = guest.host.kernel.emit
    if old:
        emit("guest.free", guest.proc.pid, old >> 12 & 0xFFFF)
    emit("guest.alloc", guest.proc.pid, pindex, "user")
    await cpu.swap(guest.dmap(3, i), pindex << 12 | LEAF_BITS)


async def remove(guest: Guest, cpu: Cpu, first: int, last: int, *, inval: bool) -> None:
    """pmap_qremove of the guest: all VPTEs to 0, one INVAL, then the frames are free."""
    for i in range(first, last):
        await cpu.swap(guest.dmap(3, i), 0)
    if inval:
        await guest.inval(first * PAGE_SIZE, last * PAGE_SIZE)
    for i in range(first, last):
        guest.host.kernel.emit("guest.free", guest.proc.pid, guest.data + i)


def unmap(policy: str = "pv_entry", *, inval: bool = True, **settings: Any) -> Host:
    """A user thread writes two pages; the guest kernel takes both."""
    host = Host(policy, cpus=2, **QUIET, **settings)
    guest = host.guest()
    for i in range(2):
        guest.vpte(i)
    guest.setmap()
    user, kern = guest.lwp(0, user=True), guest.lwp(1, user=False)
    warm(guest, kern, 2)

    async def use() -> None:
        for n in range(4):
            await touch(user, n % 2 * PAGE_SIZE, n)

    host.on("user", user, use())
    host.on("kern", kern, remove(guest, kern, 0, 2, inval=inval))
    return host


def invalidate(policy: str = "pv_entry", *, cold: bool = False, **settings: Any) -> Host:
    """A user thread on two pages; the guest kernel moves them to other frames."""
    host = Host(policy, cpus=2, **QUIET, **settings)
    guest = host.guest()
    for i in range(2):
        guest.vpte(i)
    guest.setmap()
    user, kern = guest.lwp(0, user=True), guest.lwp(1, user=False)
    warm(guest, kern, 0 if cold else 4)

    async def use() -> None:
        for n in range(4):
            await touch(user, n % 2 * PAGE_SIZE, n if n > 1 else None)

    async def move() -> None:
        for i in range(2):
            await replace(guest, kern, i, guest.data + 2 + i)

    host.on("user", user, use())
    host.on("kern", kern, move())
    return host


def ranges(policy: str = "pv_entry", **settings: Any) -> Host:
    """Three guest kernel threads INVAL overlapping ranges while a user faults in them."""
    host = Host(policy, cpus=4, **QUIET, **settings)
    guest = host.guest()
    for i in range(2):
        guest.vpte(i)
    guest.setmap()
    user = guest.lwp(0, user=True)
    kerns = [guest.lwp(n, user=False) for n in (1, 2, 3)]
    warm(guest, kerns[0], 2)

    async def use() -> None:
        for n in range(3):
            await touch(user, n % 2 * PAGE_SIZE)

    async def inval(start: int, end: int) -> None:
        for _ in range(2):
            await guest.inval(start * PAGE_SIZE, end * PAGE_SIZE)

    host.on("user", user, use())
    for cpu, (start, end) in zip(kerns, [(0, 2), (0, 1), (1, 2)], strict=True):
        host.on(f"kern{cpu.id}", cpu, inval(start, end))
    return host


def setmap(policy: str = "pv_entry", **settings: Any) -> Host:
    """SETMAP to a second tree, whose page 0 is another frame, while a user faults."""
    host = Host(policy, cpus=2, **QUIET, **settings)
    guest = host.guest()
    guest.vpte(0)
    root = 16
    for level in range(3):
        guest.poke(root + level, 0, (root + level + 1) << 12 | TABLE_BITS)
    guest.poke(root + 3, 0, 9 << 12 | LEAF_BITS)
    guest.setmap()
    user, kern = guest.lwp(0, user=True), guest.lwp(1, user=False)
    warm(guest, kern, 1)
    for pindex in (*range(root, root + 4), 9):
        drive(kern.store(guest.dmap(pindex, 511), 1))

    async def use() -> None:
        for _ in range(3):
            await touch(user, 0)

    async def switch() -> None:
        value = root << 12 | TABLE_BITS
        await vm_map_madvise(guest.vmspace.vm_map, 0, SPAN, 11, value)

    host.on("user", user, use())
    host.on("kern", kern, switch())
    return host


def munmap(policy: str = "pv_entry", **settings: Any) -> Host:
    """The guest's space is unmapped while a user runs in it (W21)."""
    host = Host(policy, cpus=2, **QUIET, **settings)
    guest = host.guest()
    guest.vpte(0)
    guest.setmap()
    user, kern = guest.lwp(0, user=True), guest.lwp(1, user=False)
    warm(guest, kern, 1)

    async def use() -> None:
        for _ in range(3):
            await touch(user, 0)

    host.on("user", user, use())
    host.on("kern", kern, vm_map_remove(guest.vmspace.vm_map, 0, SPAN))
    return host


def shootdown(policy: str = "pv_entry", **settings: Any) -> Host:
    """Two virtual CPUs with the page in their TLBs; it moves."""
    host = Host(policy, cpus=3, fault_workers=False, ipi_threads=True, **settings)
    guest = host.guest()
    guest.vpte(0)
    guest.setmap()
    users = [guest.lwp(0, user=True), guest.lwp(2, user=True)]
    kern = guest.lwp(1, user=False)
    warm(guest, kern, 2)
    host.kernel.start()

    async def use(cpu: Cpu) -> None:
        for n in range(3):
            await touch(cpu, 0, n)

    for cpu in users:
        host.on(f"user{cpu.id}", cpu, use(cpu))
    host.on("kern", kern, replace(guest, kern, 0, guest.data + 1))
    return host


def switching(
    policy: str = "pv_entry", *, idle: bool = False, outside: bool = False, **settings: Any
) -> Host:
    """A virtual CPU leaves the guest space and comes back - or its thread is switched out and in -
    while the page moves."""
    host = Host(policy, cpus=2, **QUIET, **settings)
    guest = host.guest()
    guest.vpte(0)
    guest.setmap()
    user, kern = guest.lwp(0, user=True), guest.lwp(1, user=False)
    lwp = guest.proc.lwps[0]
    warm(guest, kern, 2)
    drive(touch(user, 0))
    if outside:
        drive(pmap_setlwpvm(lwp, guest.own))

    async def use() -> None:
        for _ in range(2):
            if not outside:
                await touch(user, 0)
            if idle:
                await swtch_out(lwp)
                await swtch_in(lwp)
            else:
                await pmap_setlwpvm(lwp, guest.own)  # does nothing if it is there
                await pmap_setlwpvm(lwp, guest.vmspace)
            await touch(user, 0)

    host.on("user", user, use())
    host.on("kern", kern, replace(guest, kern, 0, guest.data + 1))
    return host


def rights(policy: str = "pv_entry", *, bits: int = 0, **settings: Any) -> Host:
    """One page read, then written; its VPTE has `bits` besides V, RW, U and A."""
    host = Host(policy, cpus=2, **QUIET, **settings)
    guest = host.guest()
    guest.vpte(0, bits=LEAF_BITS | bits)
    guest.setmap()
    user, kern = guest.lwp(0, user=True), guest.lwp(1, user=False)
    warm(guest, kern, 1)

    async def use() -> None:
        await touch(user, 0)
        await touch(user, 0, 1)

    host.on("user", user, use())
    return host


def no_execute(**settings: Any) -> Host:
    return rights(bits=VPTE_NX | VPTE_M, **settings)


ALIAS = DMAP << 1
PINDEX = 8


def evict(
    policy: str = "extent_scan", *, flush: bool = False, writer: bool = False, **settings: Any
) -> Host:
    """A clean page, mapped NORMAL at two addresses so that any reverse map finds it. A thread
    writes it through one of them, and unmaps that; the pageout path takes the page. With `writer`
    another thread writes, and what remains is one after the other."""
    host = Host(policy, cpus=2, **QUIET, **settings)
    guest = host.guest()
    guest.map(guest.own, ALIAS, SPAN, VM_MAPTYPE_NORMAL)
    user = guest.lwp(0, user=False)
    va = ALIAS + PINDEX * PAGE_SIZE
    drive(user.load(DMAP + PINDEX * PAGE_SIZE))
    drive(user.load(va))

    async def use() -> None:
        if not writer:
            await touch(user, va, 3)
        await pmap_remove(guest.own.pmap, va, va + PAGE_SIZE)
        if writer:
            await page_out()

    async def page_out() -> None:
        for dirty in (False, True):
            m = await _busied(guest)
            if m is None:
                return
            await vm_page_deactivate(m)
            # As after two rounds of the clock in which nobody used it.
            await vm_page_flag_clear(m, PG_REFERENCED)
            await host.kernel.rmap.ts_referenced(m)
            if flush:
                await vm_pageout_flush(host.kernel, [m], OBJPC_TRY_TO_CACHE)
            else:
                laundry = Laundry(max_launder=9)
                await vm_pageout_page(host.kernel, m, laundry, int(dirty), OBJPC_TRY_TO_CACHE)

    host.on("user", user, use())
    if writer:
        other = guest.lwp(1, user=False)
        host.on("writer", other, touch(other, va, 3))
    else:
        host.execution.spawn("pagedaemon", page_out())
    return host


async def _busied(guest: Guest) -> VmPage | None:
    async with guest.image.token:
        return await vm_page_lookup_busy_wait(guest.image, PINDEX, "test")


SHORT: dict[str, Any] = {
    "pages": 24, "cpus": 4, "pageout": True, "free_min": 3, "free_reserved": 2, "free_severe": 2,
    "free_target": 6, "cache_min": 4, "inactive_target": 6, "interrupt_free_min": 1,
    "max_launder": 16,
}  # fmt: skip


def paging(policy: str = "pv_entry", *, rounds: int = 24, **settings: Any) -> Host:
    """Two guests whose images do not fit into memory together, and the daemons."""
    host = Host(policy, **(SHORT | settings))
    guests = [host.guest(pid) for pid in (100, 110)]
    for guest in guests:
        for i in range(20):
            guest.vpte(i)
        guest.setmap()
    host.kernel.start()

    async def use(cpu: Cpu) -> None:
        for n in range(rounds):
            i = n * 7 % 20
            await touch(cpu, i * PAGE_SIZE + 8 * (n % 5), n)
            await touch(cpu, i * 3 % 20 * PAGE_SIZE)

    async def move(guest: Guest, cpu: Cpu) -> None:
        for n in range(rounds // 4):
            await replace(guest, cpu, n % 5, guest.data + 20 + n % 5)

    for n, guest in enumerate(guests):
        user, kern = guest.lwp(2 * n, user=True), guest.lwp(2 * n + 1, user=False)
        host.on(f"user{n}", user, use(user))
        host.on(f"kern{n}", kern, move(guest, kern))
    return host
