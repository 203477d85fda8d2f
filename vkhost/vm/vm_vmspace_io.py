"""vmspace_pread and vmspace_pwrite, which the kernel declares and answers with EINVAL.

Without that quirk they do what their comments promise: move bytes between the caller and a guest
vmspace, page by page, up to the first page that cannot be had. It is host access without a PTE and
without the interlock, so the guest's INVAL says nothing about a transfer in progress (W25).

DragonFly sys/vm/vm_vmspace.c:sys_vmspace_pread, sys_vmspace_pwrite.
"""

from __future__ import annotations

from types import coroutine

from vkprotocol.effects import Effect, Step
from vkprotocol.limits import IO_BYTES
from vkprotocol.param import PAGE_MASK, PAGE_SIZE, VM_MAX_USER_ADDRESS

from vkhost.vm.vm import VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_fault_page import vm_fault_page
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_wire import vm_page_unhold
from vkhost.vm.vmspace import Vmspace


async def vmspace_pread(vmspace: Vmspace, offset: int, nbyte: int) -> bytes:
    """The bytes from address `offset` on; fewer than asked for if a page faults."""
    end = min(offset + min(nbyte, IO_BYTES), VM_MAX_USER_ADDRESS)
    found = bytearray()
    while offset < end:
        m, _, _ = await vm_fault_page(vmspace.vm_map, offset, VM_PROT_READ)
        if m is None:
            break
        content: bytes = await m.frame.read_bytes()
        await vm_page_unhold(m)
        start = offset & PAGE_MASK
        count = min(PAGE_SIZE - start, end - offset)
        found += content[start : start + count]
        offset += count
    return bytes(found)


async def vmspace_pwrite(vmspace: Vmspace, offset: int, buf: bytes) -> int:
    """How many of the bytes have been written, in order."""
    end = min(offset + len(buf), VM_MAX_USER_ADDRESS)
    done = 0
    while offset < end:
        m, _, busied = await vm_fault_page(vmspace.vm_map, offset, VM_PROT_WRITE, busy=True)
        if m is None:
            break
        start = offset & PAGE_MASK
        count = min(PAGE_SIZE - start, end - offset)
        await _write(m, start, buf[done : done + count])
        await (vm_page_wakeup(m) if busied else vm_page_unhold(m))
        offset += count
        done += count
    return done


@coroutine
def _write(m: VmPage, start: int, content: bytes) -> Step:
    """Some bytes of a page, in one step."""
    yield Effect(m.frame.bulk, "write_bytes", write=True)
    page = bytearray(m.frame.words.tobytes())
    page[start : start + len(content)] = content
    m.frame.put_bytes(bytes(page))
    m.kernel.emit("page.write", m.pfn, bytes(page))
