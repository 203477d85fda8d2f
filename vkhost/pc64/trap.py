"""Running guest code: vmspace_ctl(RUN), and the way back through vkernel_trap.

While a guest vmspace is entered, whatever would enter the kernel - an unresolved page fault, a
system call, a signal - leaves it instead: the vkernel gets the frame and decides. A page fault that
vm_fault resolves is not noticed by anybody. Which error made it fail is not told: the guest sees
T_PAGEFLT whatever the host's reason was.

DragonFly sys/platform/pc64/x86_64/trap.c:user_trap, trap_pfault, syscall2; vm_vmspace.c:
sys_vmspace_ctl, vkernel_trap.
"""

from __future__ import annotations

from vkprotocol.errno import Errno
from vkprotocol.frame import TFRAME_WORDS, VFRAME_WORDS, frame_from, tframe_of
from vkprotocol.insn import Trapframe
from vkprotocol.param import VM_MAX_USER_ADDRESS
from vkprotocol.vkernel import VMSPACE_CTL_RUN

from vkhost.kern.lwp import Lwp, take_signals
from vkhost.kern.panic import kkassert
from vkhost.pc64.cpu import Fault
from vkhost.pc64.insn_list import InsnList
from vkhost.pc64.pmap_switch import pmap_setlwpvm
from vkhost.pc64.user_code import Interrupted, Trap, UserCode
from vkhost.vm.vm_vmspace import (
    VmspaceEntry,
    vkernel_find_vmspace,
    vmspace_entry_cache,
    vmspace_entry_drop,
)


async def vmspace_ctl(
    lwp: Lwp,
    vmspace_id: int,
    cmd: int,
    frame: Trapframe | None,
    tframe: int | None = None,
    vframe: int = 0,
) -> tuple[int, Trapframe | None]:
    """(errno, frame for the reply). Only RUN exists; its result is 0, or EINTR for a signal, or
    EFAULT when the frame could not be copied in, or out."""
    vkp = await lwp.proc.p_vkernel.load()
    if vkp is None:
        return Errno.EINVAL, None
    ve = await vkernel_find_vmspace(lwp, vkp, vmspace_id)
    if ve is None:
        return Errno.ENOENT, None
    if cmd != VMSPACE_CTL_RUN:
        await vmspace_entry_drop(ve)
        return Errno.EOPNOTSUPP, None
    await vmspace_entry_cache(lwp, ve)
    if frame is not None and tframe is not None:
        frame = await _copyin_frame(lwp, frame, tframe, vframe)
    if frame is None:
        await vmspace_entry_drop(ve)
        return Errno.EFAULT, None
    # What came before this call was delivered as it was made: its handler has run, and whatever
    # it asks for is seen at the next trap only (W38).
    await take_signals(lwp)
    await _enter(lwp, ve)
    await vmspace_entry_drop(ve)  # the call's own; the run has another
    lwp.proc.kernel.emit("run.enter", lwp.id, ve.id)
    if lwp.proc.kernel.injection is not None:
        await lwp.proc.kernel.injection.run(lwp.cpu)
    user = user_code(lwp, frame)
    trap, error = await _user_mode(lwp, user)
    await vkernel_trap(lwp, trap)
    frame = user.frame(trap)
    if tframe is None:
        return error, frame
    return error if await copyout(lwp, tframe, tframe_of(frame)) else Errno.EFAULT, None


async def _copyin_frame(lwp: Lwp, frame: Trapframe, tframe: int, vframe: int) -> Trapframe | None:
    words = await copyin(lwp, tframe, TFRAME_WORDS)
    tls = None if words is None else await copyin(lwp, vframe, VFRAME_WORDS)
    return None if words is None or tls is None else frame_from(words, tls, frame)


async def copyin(lwp: Lwp, va: int, count: int) -> list[int] | None:
    """support.s:std_copyin: words of the process's own memory; None for EFAULT.

    An access as the process would make it, faults and all; but where that has a handler for what
    the host cannot resolve, and tries again, this is the end of it.
    """
    if not _is_user(va, count):
        return None
    try:
        return [await lwp.cpu.load(va + 8 * n) for n in range(count)]
    except Fault as fault:
        _refused(lwp, fault)
        return None


async def copyout(lwp: Lwp, va: int, words: tuple[int, ...]) -> bool:
    """support.s:std_copyout. False for EFAULT."""
    if not _is_user(va, len(words)):
        return False
    try:
        for n, word in enumerate(words):
            await lwp.cpu.store(va + 8 * n, word)
    except Fault as fault:
        _refused(lwp, fault)
        return False
    return True


def _is_user(va: int, count: int) -> bool:
    return not va & 7 and va + 8 * count <= VM_MAX_USER_ADDRESS


def _refused(lwp: Lwp, fault: Fault) -> None:
    proc = lwp.proc
    proc.kernel.emit("user.fault", lwp.id, str(proc.pid), fault.va, fault.fault_type)


def user_code(lwp: Lwp, frame: Trapframe) -> UserCode:
    """What executes the frame."""
    budget = lwp.proc.kernel.config.run_budget
    if frame.machine is None:
        return InsnList(frame, budget)
    from vkhost.pc64.machine_code import MachineCode  # needs the extra

    return MachineCode(lwp, frame, budget)


async def _enter(lwp: Lwp, ve: VmspaceEntry) -> None:
    vklp = lwp.lwp_vkernel
    assert vklp is not None
    vklp.ve = ve
    await ve.refs.add(1)
    ve.emit_refs()
    await pmap_setlwpvm(lwp, ve.vmspace)


async def vkernel_trap(lwp: Lwp, trap: Trap | None) -> None:
    """Leave the guest vmspace: back to the vkernel's own, and only then the reference goes, for it
    is all that keeps vmspace_destroy out. `trap` None: a signal."""
    kernel = lwp.proc.kernel
    vklp = lwp.lwp_vkernel
    assert vklp is not None
    ve = vklp.ve
    kkassert(kernel, ve is not None, "vkernel_trap: no vmspace is running")
    assert ve is not None
    vklp.ve = None
    await pmap_setlwpvm(lwp, lwp.proc.p_vmspace)
    trapno, addr = (0, 0) if trap is None else (trap.trapno, trap.addr)
    kernel.emit("run.exit", lwp.id, ve.id, trapno, addr)
    if "run-ref-kept" not in kernel.mutants:
        await vmspace_entry_drop(ve)


async def _user_mode(lwp: Lwp, user: UserCode) -> tuple[Trap | None, int]:
    """Instructions until one of them leaves."""
    try:
        while True:
            await user.step(lwp)
    except Interrupted:
        return None, Errno.EINTR
    except Trap as trap:
        return trap, 0
