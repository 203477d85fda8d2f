"""umtx_sleep and umtx_wakeup: what user mutexes are made of. DragonFly `kern/kern_umtx.c`.

The real one sleeps on the physical address of the word. Here a page may move, so what names the
word is its place in the object when that is shared, else its address in the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import CLOCK, key_text
from vkprotocol.errno import Errno

from vkguest.kern.callout import callout_reset
from vkguest.vkernel64.copyio import copyin
from vkguest.vm.vm_map import INHERIT_SHARE, vm_map_lookup_entry

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData


async def _channel(lp: Lwp, va: int) -> str:
    vm_map = lp.proc.vmspace.vm_map
    await vm_map.lock.acquire_shared()
    entry = vm_map_lookup_entry(vm_map, va)
    name = f"umtx {vm_map.pmap.id} {va:#x}"
    if entry is not None and entry.inheritance == INHERIT_SHARE:
        name = f"umtx {key_text(entry.object.lock.key)} {entry.pindex(va)} {va & 4095}"
    await vm_map.lock.release()
    return name


async def sys_umtx_sleep(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    """umtx_sleep(ptr, value, timeout in us): 0 when woken, EBUSY when the word is another value,
    EWOULDBLOCK when the time is over. It may return 0 without a wakeup, as the real one may."""
    va, value, timeout = args[:3]
    md = lp.md
    assert md is not None
    slept = -1  # progress: it slept, and has been woken
    if md.progress == slept:
        return 0
    if md.progress:
        return -Errno.EWOULDBLOCK if CLOCK[0] >= md.progress else 0
    kernel = gd.kernel
    channel = await _channel(lp, va)
    # Whoever wakes takes the lock after its store, so that either we see the store or it sees us.
    async with kernel.umtx_lock:
        raw = await copyin(gd, lp.proc.vmspace.vm_map, va, 4)
        if raw is None:
            return -Errno.EFAULT
        if raw != (value & 0xFFFF_FFFF).to_bytes(4, "little"):
            return -Errno.EBUSY
        md.progress = slept
        if timeout:
            md.progress = CLOCK[0] + 1000 * timeout
            callout_reset(gd, lp, md.progress)
        await kernel.sched.tsleep(lp, channel)
    return None


async def sys_umtx_wakeup(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """umtx_wakeup(ptr, count). Whatever the count, all are woken: the word tells them."""
    channel = await _channel(lp, args[0])
    async with gd.kernel.umtx_lock:
        await gd.kernel.sched.wakeup(channel)
    return 0
