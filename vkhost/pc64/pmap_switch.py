"""Which page tables a CPU runs on. DragonFly pc64 pmap.c:pmap_setlwpvm, swtch.s.

The order is what keeps shootdowns complete: a CPU is in pm_active before it can have anything of
the pmap in its TLB, and leaves only once it has nothing.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING

from vkprotocol.effects import Step, curthread

from vkhost.pc64.pmap import CPULOCK_EXCL, Pmap, not_excl

if TYPE_CHECKING:
    from vkhost.kern.lwp import Lwp
    from vkhost.pc64.cpu import Cpu
    from vkhost.vm.vmspace import Vmspace


async def pmap_setlwpvm(lwp: Lwp, vmspace: Vmspace) -> None:
    """Change the address space of the running lwp: entering and leaving a guest's."""
    oldvm = lwp.vmspace
    if oldvm is vmspace:
        return
    lwp.vmspace = vmspace
    await _switch_to(lwp.cpu, vmspace.pmap)
    await _set_active(lwp.cpu, oldvm.pmap, False)


async def swtch_in(lwp: Lwp) -> None:
    """The lwp, on this kernel thread, starts to run on its CPU: now, or again after swtch_out."""
    cpu = lwp.cpu
    cpu.kernel.bind(curthread().tid, cpu)
    cpu.lwp = lwp
    pmap = lwp.vmspace.pmap
    if "swtch-keeps-cr3" in cpu.kernel.mutants and cpu.cr3 is pmap:
        # git 95270b7ecb: the bit was clear for a while, so a shootdown may have passed us by.
        await _set_active(cpu, pmap, True)
        return
    await _switch_to(cpu, pmap)


async def swtch_out(lwp: Lwp) -> None:
    """The CPU goes idle: out of pm_active, with %cr3 and the TLB as they are."""
    cpu = lwp.cpu
    await _set_active(cpu, lwp.vmspace.pmap, False)
    cpu.lwp = None


async def _switch_to(cpu: Cpu, pmap: Pmap) -> None:
    if await _set_active(cpu, pmap, True) & CPULOCK_EXCL:
        # pmap_interlock_wait: a shootdown that did not count us is in progress.
        await pmap.pm_active.wait(not_excl)
    await cpu.tlb.load_cr3(pmap)


@coroutine
def _set_active(cpu: Cpu, pmap: Pmap, active: bool) -> Step:
    """Our bit in pm_active; the word before."""
    word = pmap.pm_active
    yield word._write
    old: int = word.state
    word.state = old | cpu.mask if active else old & ~cpu.mask
    cpu.kernel.emit("cpu.active", pmap.id, word.state & ~CPULOCK_EXCL)
    return old
