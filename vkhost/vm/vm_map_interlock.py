"""The vm_map interlock: serialises a fault's walk of the guest's page table with MADV_INVAL.

A fault and an INVAL both hold the map lock shared. Without more, a fault may read a VPTE, lose the
CPU, and install a host PTE after the guest has cleared that VPTE and seen its INVAL return (W01).
So both lock the range of addresses they are about:

    INVAL of a range that returns => every fault that read a VPTE of the range before the INVAL's
    pmap_remove has installed its PTE before that pmap_remove, or has failed, or starts again.

It is a hack in its author's words: a LIFO list under a spinlock, no fairness, not recursive, the
lock in the caller's stack frame. Its own races are part of the catalogue (W29), so it is built of
spinlock, ssleep and wakeup exactly as the kernel's. (A stack address used again gives the kernel
spurious wakeups, which the rescan makes harmless; here every ilock sleeps on its own channel.)

DragonFly sys/vm/vm_map.c:vm_map_interlock, vm_map_deinterlock; git fc531fbc3f.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Cell, Key, WaitChannel, fresh_key

from vkhost.kern.panic import panic
from vkhost.kern.token import tsleep

if TYPE_CHECKING:
    from vkhost.vm.vm_map import VmMap

ILOCK_WAITING = 0x1


class VmMapIlock:
    """One locked range [ran_beg, ran_end). `next` and the list are guarded by map.ilock_spin;
    ILOCK_WAITING is set under it and read by the owner when nobody can set it any more."""

    __slots__ = ("_chan", "_key", "flags", "next", "ran_beg", "ran_end")

    def __init__(self, ran_beg: int, ran_end: int) -> None:
        self._key: Key = fresh_key("ilock")
        self._chan: WaitChannel | None = None
        self.ran_beg = ran_beg
        self.ran_end = ran_end
        self.flags = Cell((*self._key, "flags"), 0)
        self.next: VmMapIlock | None = None

    @property
    def chan(self) -> WaitChannel:
        """Its address, as a thing to sleep on."""
        if self._chan is None:
            self._chan = WaitChannel((*self._key, "wait"))
        return self._chan


async def vm_map_interlock(vm_map: VmMap, ran_beg: int, ran_end: int) -> VmMapIlock:
    """Lock the range; sleeps while any overlapping range is locked, restarting from the head."""
    kernel = vm_map.kernel
    ilock = VmMapIlock(ran_beg, ran_end)
    if not (kernel.config.interlock and kernel.rmap.interlocks):
        return ilock
    await vm_map.ilock_spin.acquire()
    scan = vm_map.ilock_base
    while scan is not None:
        if ran_end > scan.ran_beg and ran_beg < scan.ran_end:
            scan = await _wait_for(vm_map, ilock, scan)
        else:
            scan = scan.next
    ilock.next = vm_map.ilock_base
    vm_map.ilock_base = ilock
    kernel.emit("ilock.enter", vm_map.pmap.id, ran_beg, ran_end)
    await vm_map.ilock_spin.release()
    return ilock


async def _wait_for(vm_map: VmMap, ilock: VmMapIlock, scan: VmMapIlock) -> VmMapIlock | None:
    """Sleep until `scan` is released. Returns where the scan of the list goes on."""
    kernel = vm_map.kernel
    # The flag goes into the conflicting ilock: it is that one's owner who looks.
    marked = ilock if "ilock-waiting-in-own" in kernel.mutants else scan
    await marked.flags.set_bits(ILOCK_WAITING)
    kernel.emit("ilock.wait", vm_map.pmap.id, ilock.ran_beg, ilock.ran_end)
    if "ilock-unlock-before-enqueue" in kernel.mutants:
        await vm_map.ilock_spin.release()
        await tsleep(scan.chan)
        await vm_map.ilock_spin.acquire()
    else:
        await tsleep(scan.chan, spin=vm_map.ilock_spin)
    # Anything may have been pushed in front while we slept, and we sleep on one conflict only.
    return scan.next if "ilock-no-rescan" in kernel.mutants else vm_map.ilock_base


async def vm_map_deinterlock(vm_map: VmMap, ilock: VmMapIlock) -> None:
    """Unlink under the spinlock, drop it, then look whether anybody waits.

    Safe in that order only: once unlinked, nobody can find the ilock to set WAITING.
    """
    kernel = vm_map.kernel
    if not (kernel.config.interlock and kernel.rmap.interlocks):
        return
    early = False
    if "ilock-test-before-unlink" in kernel.mutants:
        early = await ilock.flags.load() & ILOCK_WAITING == 0
    await vm_map.ilock_spin.acquire()
    linked = _unlink(vm_map, ilock)
    if linked:
        kernel.emit("ilock.exit", vm_map.pmap.id, ilock.ran_beg, ilock.ran_end)
    await vm_map.ilock_spin.release()
    if not linked:
        panic(kernel, "vm_map_deinterlock: missing ilock!")
    if early or await ilock.flags.load() & ILOCK_WAITING == 0:
        return
    if "ilock-wake-one" in kernel.mutants:
        await ilock.chan.wakeup_one()
    else:
        await ilock.chan.wakeup()


def _unlink(vm_map: VmMap, ilock: VmMapIlock) -> bool:
    """Precondition: ilock_spin. False when the ilock is not in the list."""
    if vm_map.ilock_base is ilock:
        vm_map.ilock_base = ilock.next
        return True
    scan = vm_map.ilock_base
    while scan is not None:
        if scan.next is ilock:
            scan.next = ilock.next
            return True
        scan = scan.next
    return False
