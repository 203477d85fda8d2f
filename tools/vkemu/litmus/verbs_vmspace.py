"""The vmspace_* calls of a vkernel, by the host's own system call table; and fork.

The first of them makes the process of the test one that has vmspaces, by id, beside the address
space that the test's [va] are in.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from vkprotocol import messages as msg
from vkprotocol.frame import TFRAME_WORDS, tframe_of, vframe_of
from vkprotocol.insn import NREGS, Insn, Op, Trapframe
from vkprotocol.limits import RUN_BUDGET
from vkprotocol.messages import MEMIMAGE_FD
from vkprotocol.mman import (
    MADV_AUTOSYNC,
    MADV_CORE,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_INVAL,
    MADV_NOCORE,
    MADV_NORMAL,
    MADV_NOSYNC,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_SETMAP,
    MADV_WILLNEED,
    MAP_FIXED,
    MAP_SHARED,
    MAP_VPAGETABLE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS
from vkprotocol.vkernel import SIGUSR1, T_SYSCALL, VMSPACE_CTL_RUN

from vkemu.litmus.actor import FAULT_TYPES, FAULTED, Actor, FaultKind, accessed, verb
from vkemu.litmus.calls import PROTS, Prot
from vkemu.litmus.machine import DMAP, fault
from vkemu.litmus.operand import Budget, Pages, RunningCpu, Va, VmspaceId, Word, choice
from vkemu.litmus.tables import MASTER_PDE
from vkhost.kern.lwp import lwpsignal
from vkhost.kern.syscall import SYSCALLS
from vkhost.pc64.pmap_switch import pmap_setlwpvm
from vkhost.vm.vm import COWF_COPY_ON_WRITE, VM_MAPTYPE_NORMAL, VM_MAPTYPE_VPAGETABLE
from vkhost.vm.vm_map import vm_map_lock, vm_map_unlock
from vkhost.vm.vm_map_backing import vm_map_entry_allocate_object
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_map_protect import vm_map_protect
from vkhost.vm.vm_map_wire import vm_map_unwire
from vkhost.vm.vm_vmspace import vkernel_exit, vkernel_lwp_exit
from vkhost.vm.vmspace import Vmspace, vmspace_fork, vmspace_rel

PROGRAMS: Final = {
    "load": (Insn(Op.LD, rd=1, rs=2), Insn(Op.SYSCALL)),
    "spin": (Insn(Op.LD, rd=1, rs=2), Insn(Op.BEQ)),  # branches to 0 as r0 == r0
}
ADVICE: Final = {
    "normal": MADV_NORMAL, "random": MADV_RANDOM, "sequential": MADV_SEQUENTIAL,
    "willneed": MADV_WILLNEED, "dontneed": MADV_DONTNEED, "nosync": MADV_NOSYNC,
    "autosync": MADV_AUTOSYNC, "nocore": MADV_NOCORE, "core": MADV_CORE,
}  # fmt: skip


async def _call(me: Actor, request: type[msg.Request], **fields: Any) -> dict[str, Any]:
    lwp = me.lwp
    message = request(lwp=lwp.tid, seq=0, **fields)
    name = type(message).__struct_config__.tag
    lwp.proc.kernel.emit("syscall.begin", lwp.id, name)
    result: dict[str, Any] = await SYSCALLS[type(message)](lwp, message)
    lwp.proc.kernel.emit(
        "syscall.end", lwp.id, name, result.get("errno", 0), result.get("value", 0)
    )
    return result


@verb("guest")
async def vcreate(me: Actor, ident: VmspaceId) -> int:
    """cpu_vmspace_alloc: create, map the memory image with virtual page tables, SETMAP; errno."""
    result = await _call(me, msg.VmspaceCreate, id=ident)
    if result["errno"]:
        return int(result["errno"])
    await _call(
        me, msg.VmspaceMmap, id=ident, addr=0, length=VM_MAX_USER_ADDRESS,
        prot=PROT_READ | PROT_WRITE | PROT_EXEC, flags=MAP_SHARED | MAP_VPAGETABLE | MAP_FIXED,
        fd=MEMIMAGE_FD, offset=0,
    )  # fmt: skip
    result = await _call(
        me, msg.VmspaceMcontrol, id=ident, addr=0, length=VM_MAX_USER_ADDRESS, behav=MADV_SETMAP,
        value=MASTER_PDE,
    )  # fmt: skip
    return int(result["errno"])


@verb("guest")
async def vdestroy(me: Actor, ident: VmspaceId) -> int:
    """vmspace_destroy; its errno."""
    return int((await _call(me, msg.VmspaceDestroy, id=ident))["errno"])


@verb("guest")
async def vinval(me: Actor, ident: VmspaceId, va: Va, pages: Pages = 1) -> int:
    """vmspace_mcontrol(INVAL) of a vmspace by id; its errno."""
    result = await _call(
        me, msg.VmspaceMcontrol, id=ident, addr=me.va(va), length=pages * PAGE_SIZE,
        behav=MADV_INVAL,
    )  # fmt: skip
    return int(result["errno"])


@verb("guest")
async def vpread(me: Actor, ident: VmspaceId, va: Va) -> int:
    """vmspace_pread of a word of a vmspace by id; its errno."""
    result = await _call(me, msg.VmspacePread, id=ident, offset=me.va(va), nbyte=8)
    return int(result.get("errno", 0))


@verb("guest")
async def vrun(
    me: Actor,
    ident: VmspaceId,
    va: Va,
    program: Annotated[str, choice(*PROGRAMS)],
    budget: Budget = RUN_BUDGET,
    stack: Va = "",
) -> int:
    """RUN: the vCPU loads a word at va and returns (`load`: what it read), or loads it for ever
    until something makes it leave (`spin`: the errno of that). With `stack`, an address of `kva`,
    its trap frame is there and not in the call: EFAULT if the host cannot copy it in or out. What
    the kernel itself faults on as it writes it leaves what a fault does."""
    regs = [0] * NREGS
    regs[2] = me.va(va)
    frame = Trapframe(regs=tuple(regs), text=PROGRAMS[program], budget=budget)
    tframe = me.va(stack) if stack else None
    if tframe is not None:
        for n, word in enumerate((*tframe_of(frame), *vframe_of(frame))):
            if await accessed(me.cpu.store(tframe + 8 * n, word)) == FAULTED:
                return FAULTED
    result = await _call(
        me, msg.VmspaceCtl, id=ident, cmd=VMSPACE_CTL_RUN, frame=frame, tframe=tframe,
        vframe=0 if tframe is None else tframe + 8 * TFRAME_WORDS,
    )  # fmt: skip
    after: Trapframe | None = result["frame"]
    if program == "spin" or after is None:
        return int(result["errno"])
    return after.regs[1] if after.trapno == T_SYSCALL else FAULTED


@verb("guest")
async def kva(me: Actor) -> int:
    """init_kern_memory: the vkernel shows itself its image by virtual page tables too. They are
    those of the test, so that each [va] is an address of its own."""
    machine = me.machine
    vm_map = machine.own.vm_map
    await machine.map(machine.own, machine.image, 0, DMAP, VM_MAPTYPE_VPAGETABLE)
    return await vm_map_madvise(vm_map, 0, DMAP, MADV_SETMAP, MASTER_PDE)


@verb("guest")
async def kload(me: Actor, va: Va) -> int:
    """The guest kernel's own load of KVA; a fault that the host cannot resolve is a SIGSEGV."""
    return await accessed(me.cpu.load(me.va(va)))


@verb("guest")
async def kstore(me: Actor, va: Va, value: Word) -> int:
    """The guest kernel's own store to KVA."""
    return await accessed(me.cpu.store(me.va(va), value))


@verb("guest")
async def kinval(me: Actor, va: Va, pages: Pages = 1) -> int:
    """madvise(INVAL) of KVA; its errno."""
    start = me.va(va)
    vm_map = me.machine.own.vm_map
    return await vm_map_madvise(vm_map, start, start + pages * PAGE_SIZE, MADV_INVAL)


@verb("guest")
async def vexit(me: Actor) -> int:
    """The process exits: its threads' caches go, then what vmspaces are left."""
    for lwp in me.machine.proc.lwps:
        await vkernel_lwp_exit(lwp)
    await vkernel_exit(me.machine.proc)
    return 0


@verb("host guest")
async def kick(me: Actor, cpu: RunningCpu) -> int:
    """The IPI of a vkernel: flag an AST for the virtual CPU, then signal its thread."""
    await me.machine.ast(cpu).store(1)
    await lwpsignal(me.machine.lwps[cpu], SIGUSR1)
    return 0


@verb("guest")
async def ast(me: Actor) -> int:
    """go_user looks at RQF_AST_MASK."""
    return int(await me.machine.ast(me.cpu.id).load())


@verb("user")
async def setvm(me: Actor, which: Annotated[str, choice("own", "guest", "child")]) -> int:
    """pmap_setlwpvm: leave the guest's address space, enter the one that is now the guest's, or
    that of the process that was forked last: what the thread loads and stores then, the child
    does."""
    machine = me.machine
    _ = me.running
    vmspace = {"own": machine.own, "guest": machine.guest}.get(which)
    await pmap_setlwpvm(me.lwp, vmspace or _child(me))
    return 0


def _child(me: Actor) -> Vmspace:
    """The process that was forked last."""
    if not me.machine.children:
        raise me.misused("no child yet, expected after a `fork`")
    return me.machine.children[-1]


@verb("guest")
async def respawn(me: Actor) -> int:
    """The guest process exits and the next one gets its vmspace: pmap_remove_pages, no IPIs."""
    await me.machine.respawn()
    return 0


@verb("user guest host")
async def private(me: Actor, pages: Pages) -> int:
    """The guest's mapping becomes a MAP_PRIVATE one of so many pages of its image."""
    machine = me.machine
    vm_map, size = machine.guest.vm_map, pages * PAGE_SIZE
    await vm_map_remove(vm_map, 0, VM_MAX_USER_ADDRESS)
    await machine.map(
        machine.guest, machine.image, 0, size, VM_MAPTYPE_VPAGETABLE, cow=COWF_COPY_ON_WRITE
    )
    return await vm_map_madvise(vm_map, 0, size, MADV_SETMAP, MASTER_PDE)


@verb("user guest host")
async def ordinary(
    me: Actor, pages: Pages, of: Annotated[str, choice("private", "anonymous")]
) -> int:
    """The guest's mapping becomes one without virtual page tables, of so many pages of its image or
    of no file: what any process has. The page at an address is the one of that number."""
    machine = me.machine
    await vm_map_remove(machine.guest.vm_map, 0, VM_MAX_USER_ADDRESS)
    image = machine.image if of == "private" else None
    size, cow = pages * PAGE_SIZE, COWF_COPY_ON_WRITE if image else 0
    await machine.map(machine.guest, image, 0, size, VM_MAPTYPE_NORMAL, cow=cow)
    return 0


@verb("user guest host")
async def anonymous(me: Actor, pages: Pages) -> int:
    """The guest's mapping becomes a MAP_ANON one of so many pages, with what its image holds now:
    the image of a vkernel that has no file."""
    machine = me.machine
    vm_map, size = machine.guest.vm_map, pages * PAGE_SIZE
    await vm_map_remove(vm_map, 0, VM_MAX_USER_ADDRESS)
    await machine.map(machine.guest, None, 0, size, VM_MAPTYPE_VPAGETABLE)
    await vm_map_lock(vm_map)
    if not vm_map.entries:
        raise me.misused("another thread has unmapped it, expected nobody to do so meanwhile")
    await vm_map_entry_allocate_object(vm_map, vm_map.entries[0])
    obj = vm_map.entries[0].ba.object
    await vm_map_unlock(vm_map)
    assert obj is not None
    for pindex in range(machine.litmus.image_pages):
        content = machine.content(pindex)
        if any(content):
            await machine.make_resident(obj, pindex, content, dirty=True)
    return await vm_map_madvise(vm_map, 0, size, MADV_SETMAP, MASTER_PDE)


@verb("user guest host")
async def fork(me: Actor) -> int:
    """vmspace_fork of the guest process: from here on both are copy-on-write."""
    machine = me.machine
    machine.children.append(await vmspace_fork(machine.guest, "child", machine.proc))
    return 0


@verb("guest host")
async def child_exit(me: Actor) -> int:
    """The process that was forked last exits: vmspace_rel."""
    child = _child(me)
    if any(lwp.vmspace is child for lwp in me.machine.lwps.values()):
        raise me.misused("a CPU runs it, expected a `setvm guest` before")
    me.machine.children.remove(child)
    await vmspace_rel(child)
    return 0


@verb("guest host")
async def mlock(me: Actor, va: Va, pages: Pages = 1) -> int:
    """mlock of a range of the guest process, by the host process that it is; its KERN_* result."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_unwire(vm_map, start, start + pages * PAGE_SIZE, new_pageable=False)


@verb("guest host")
async def mprotect(me: Actor, va: Va, prot: Prot, pages: Pages = 1) -> int:
    """mprotect of a range of the guest process, as mlock; its KERN_* result."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_protect(vm_map, start, start + pages * PAGE_SIZE, PROTS[prot])


@verb("guest host")
async def madvise_free(me: Actor, va: Va, pages: Pages = 1) -> int:
    """madvise(MADV_FREE) of a range of the guest process: what the pages hold may be lost."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_madvise(vm_map, start, start + pages * PAGE_SIZE, MADV_FREE)


@verb("guest host")
async def madvise(
    me: Actor, va: Va, advice: Annotated[str, choice(*ADVICE)], pages: Pages = 1
) -> int:
    """madvise of a range of the guest process that is kept in its map, or about its pages; its
    errno."""
    start = me.va(va)
    vm_map = me.machine.guest.vm_map
    return await vm_map_madvise(vm_map, start, start + pages * PAGE_SIZE, ADVICE[advice])


@verb("fault")
async def child_fault(me: Actor, va: Va, kind: FaultKind) -> int:
    """vm_fault for the process that was forked last: read, write or fetch; its KERN_* result."""
    lwp = me.machine.lwps.get(me.cpu.id)
    return await fault(lwp, _child(me), me.va(va), FAULT_TYPES[kind])
