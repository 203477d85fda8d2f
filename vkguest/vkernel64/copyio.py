"""The kernel reads and writes user memory. DragonFly vkernel64 `platform/copyio.c`.

There is no user mapping to go through: the page is looked up as a fault would, held, and accessed
through the DMAP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol import insn
from vkprotocol.errno import Errno
from vkprotocol.limits import U64
from vkprotocol.mman import PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_MASK, PAGE_SIZE

from vkguest.kern.kern_ktrace import ktrcopiedin, ktrcopyin, ktrcopyout, ktrsysret
from vkguest.kern.param import phys_to_dmap
from vkguest.vkernel64.dmap import access, atomic_cmpset_long, load, store
from vkguest.vm.vm_fault import vm_fault_page_quick
from vkguest.vm.vm_page import vm_page_unhold

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vm.vm_map import VmMap


async def fuword64(gd: GlobalData, vm_map: VmMap, va: int) -> int | None:
    """copyio.c:fuword64: the word at `va`, None for EFAULT."""
    m = await vm_fault_page_quick(gd, vm_map, va, PROT_READ)
    if m is None:
        return None
    value = await load(gd, phys_to_dmap(m.frame) + (va & PAGE_MASK))
    await vm_page_unhold(gd, m)
    return value


async def suword64(gd: GlobalData, vm_map: VmMap, va: int, value: int) -> bool:
    """copyio.c:suword64. False for EFAULT."""
    m = await vm_fault_page_quick(gd, vm_map, va, PROT_READ | PROT_WRITE)
    if m is None:
        return False
    await store(gd, phys_to_dmap(m.frame) + (va & PAGE_MASK), value)
    await vm_page_unhold(gd, m)
    return True


async def copyin(gd: GlobalData, vm_map: VmMap, va: int, count: int) -> bytes | None:
    """copyio.c:copyin: `count` bytes, page by page; None for EFAULT. Raises VmWait."""
    lp = _told(gd, vm_map)
    if lp is None:
        return await _copyin(gd, vm_map, va, count)
    ktrcopyin(gd, lp, va, count)
    found = None
    try:
        found = await _copyin(gd, vm_map, va, count)
    finally:
        if found is None:
            ktrsysret(gd, lp, "copyin", -Errno.EFAULT)
    if found is not None:
        ktrcopiedin(gd, lp, va, found)
    return found


def _told(gd: GlobalData, vm_map: VmMap) -> Lwp | None:
    """Whose memory it is, when that is machine code."""
    lp = gd.curlwp
    return lp if lp is not None and lp.md is not None and lp.proc.vmspace.vm_map is vm_map else None


async def _copyin(gd: GlobalData, vm_map: VmMap, va: int, count: int) -> bytes | None:
    found = b""
    while len(found) < count:
        here = va + len(found)
        part = min(count - len(found), PAGE_SIZE - (here & PAGE_MASK))
        m = await vm_fault_page_quick(gd, vm_map, here, PROT_READ)
        if m is None:
            return None
        found += await bcopy_from(gd, phys_to_dmap(m.frame) + (here & PAGE_MASK), part)
        await vm_page_unhold(gd, m)
    return found


async def copyout(gd: GlobalData, vm_map: VmMap, va: int, content: bytes) -> bool:
    """copyio.c:copyout. False for EFAULT, what came before the bad page written. Raises VmWait."""
    lp = _told(gd, vm_map)
    if lp is None:
        return await _copyout(gd, vm_map, va, content)
    ktrcopyout(gd, lp, va, content)
    done = False
    try:
        done = await _copyout(gd, vm_map, va, content)
    finally:
        ktrsysret(gd, lp, "copyout", 0 if done else -Errno.EFAULT)
    return done


async def _copyout(gd: GlobalData, vm_map: VmMap, va: int, content: bytes) -> bool:
    done = 0
    while done < len(content):
        here = va + done
        part = min(len(content) - done, PAGE_SIZE - (here & PAGE_MASK))
        m = await vm_fault_page_quick(gd, vm_map, here, PROT_READ | PROT_WRITE)
        if m is None:
            return False
        at = phys_to_dmap(m.frame) + (here & PAGE_MASK)
        await bcopy_to(gd, at, content[done : done + part])
        await vm_page_unhold(gd, m)
        done += part
    return True


async def copyinstr(gd: GlobalData, vm_map: VmMap, va: int, limit: int) -> bytes | None:
    """copyio.c:copyinstr: up to a zero byte; None when there is none within `limit`, or EFAULT."""
    found = b""
    while len(found) < limit:
        here = va + len(found)
        part = await copyin(gd, vm_map, here, min(64, PAGE_SIZE - (here & PAGE_MASK)))
        if part is None:
            return None
        head, zero, _ = part.partition(b"\0")
        found += head
        if zero:
            return found
    return None


async def bcopy_from(gd: GlobalData, at: int, count: int) -> bytes:
    """Bytes of kernel memory, read by the word."""
    first = at & ~7
    words = await access(gd, *(insn.load(va) for va in range(first, at + count, 8)))
    raw = b"".join(word.to_bytes(8, "little") for word in words)
    return raw[at - first :][:count]


async def bcopy_to(gd: GlobalData, at: int, content: bytes) -> None:
    """Bytes to kernel memory. A word of which only some are written keeps the rest as it is at that
    moment: a program on another vCPU may be writing there."""
    end = at + len(content)
    whole: list[insn.MemOp] = []
    for va in range(at & ~7, end, 8):
        low, high = max(va, at), min(va + 8, end)
        part = content[low - at : high - at]
        if len(part) == 8:
            whole.append(insn.store(va, int.from_bytes(part, "little")))
            continue
        shift = 8 * (low - va)
        mask = (1 << 8 * len(part)) - 1 << shift & U64
        bits = int.from_bytes(part, "little") << shift
        old = await load(gd, va)
        while not await atomic_cmpset_long(gd, va, old, old & ~mask | bits):
            old = await load(gd, va)
    if whole:
        await access(gd, *whole)
