"""System calls: typed requests of a guest's virtual CPU, served by its host lwp one by one.

DragonFly sys/platform/pc64/x86_64/trap.c:syscall2; sys/kern/kern_exit.c, kern_sig.c.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from vkprotocol import messages as msg
from vkprotocol.effects import Thread, curthread
from vkprotocol.errno import Errno
from vkprotocol.insn import Mem, MemOp
from vkprotocol.param import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from vkprotocol.vkernel import NSIG

from vkhost.kern.kern_ktrace import ktrace
from vkhost.kern.lwp import Lwp, Proc, lwpsignal
from vkhost.kern.proc import KILLED, fork1, lwp_exit
from vkhost.kern.user_calls import Fork, Mlock, Mprotect, Munlock
from vkhost.pc64.cpu import Fault
from vkhost.pc64.cpuid import cpuid
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.pc64.trap import vmspace_ctl
from vkhost.vm.vm_meter import SysctlError, sysctl
from vkhost.vm.vm_mmap import (
    kern_mcontrol,
    kern_mmap,
    kern_munmap,
    sys_madvise,
    sys_mcontrol,
    sys_mlock,
    sys_mmap,
    sys_mprotect,
    sys_msync,
    sys_munlock,
)
from vkhost.vm.vm_vmspace import (
    VmspaceEntry,
    vkernel_find_vmspace,
    vmspace_create,
    vmspace_destroy,
    vmspace_entry_drop,
)
from vkhost.vm.vm_vmspace_io import vmspace_pread, vmspace_pwrite

Result = dict[str, Any]  # fields of the Reply
Handler = Callable[[Lwp, Any], Awaitable[Result]]


def _errno(error: int, value: int = 0) -> Result:
    return {"errno": int(error), "value": 0 if error else value}


def proc_start(proc: Proc) -> list[Thread]:
    """Let its threads run."""
    threads = []
    for lwp in proc.lwps:
        proc.kernel.emit("lwp.create", proc.pid, lwp.id)
        thread = proc.kernel.spawn(f"lwp {proc.name}.{lwp.tid}", lwp_main(lwp))
        lwp.thread_id = thread.tid
        threads.append(thread)
    return threads


async def lwp_main(lwp: Lwp) -> None:
    """The kernel thread of a virtual CPU: receive, serve, reply, until it exits or is killed."""
    await _serve(lwp)
    lwp.proc.kernel.unbind(curthread().tid)


async def syscall2(lwp: Lwp, request: msg.Request) -> Result:
    """trap.c:syscall2."""
    kernel = lwp.proc.kernel
    injection = kernel.injection
    name, call = SYSENT[type(request)]
    kernel.emit("syscall.begin", lwp.id, name)
    if injection is not None:
        await injection.request(lwp.proc)
    result = await call(lwp, request)
    kernel.emit("syscall.end", lwp.id, name, result.get("errno", 0), result.get("value", 0))
    return result


async def _serve(lwp: Lwp) -> None:
    injection = lwp.proc.kernel.injection
    await swtch_in(lwp)
    while True:
        request = await lwp.requests.recv()
        if request is KILLED:
            break
        result = await syscall2(lwp, request)
        if await lwp.proc.killed.load():
            break
        if isinstance(request, msg.Exit):
            await lwp_exit(lwp)
            await lwp.replies.send(msg.Reply(lwp=lwp.tid, seq=request.seq, **result))
            await _refuse_the_rest(lwp)
            return
        if injection is not None:
            await injection.reply(lwp.proc)
        await lwp.replies.send(msg.Reply(lwp=lwp.tid, seq=request.seq, **result))
    await lwp_exit(lwp)
    await lwp.replies.send(_killed(lwp))


def _killed(lwp: Lwp) -> msg.Goodbye:
    if lwp.proc.lowmemkill.value:
        return msg.Goodbye(errno=int(Errno.ENOMEM), reason="killed: out of swap space")
    return msg.Goodbye(errno=int(Errno.EINTR), reason="killed")


async def _refuse_the_rest(lwp: Lwp) -> None:
    """Nobody is left for what was asked after Exit, but it is answered."""
    while lwp.requests.queue:
        request = await lwp.requests.recv()
        if request is not KILLED:
            reply = msg.Reply(lwp=lwp.tid, seq=request.seq, errno=int(Errno.ESRCH))
            await lwp.replies.send(reply)
    lwp.closed = True


# vmspace_*: EINVAL without any vmspace, then ENOENT, before an argument is looked at.


async def _with_vmspace(
    lwp: Lwp, vmspace_id: int, call: Callable[[VmspaceEntry], Awaitable[Result]]
) -> Result:
    vkp = await lwp.proc.p_vkernel.load()
    if vkp is None:
        return _errno(Errno.EINVAL)
    ve = await vkernel_find_vmspace(lwp, vkp, vmspace_id)
    if ve is None:
        return _errno(Errno.ENOENT)
    result = await call(ve)
    await vmspace_entry_drop(ve)
    return result


async def _vmspace_create(lwp: Lwp, m: msg.VmspaceCreate) -> Result:
    return _errno(await vmspace_create(lwp, m.id))


async def _vmspace_destroy(lwp: Lwp, m: msg.VmspaceDestroy) -> Result:
    return _errno(await vmspace_destroy(lwp, m.id))


async def _vmspace_ctl(lwp: Lwp, m: msg.VmspaceCtl) -> Result:
    error, frame = await vmspace_ctl(lwp, m.id, m.cmd, m.frame, m.tframe, m.vframe)
    return {"errno": int(error), "frame": frame}


async def _vmspace_mmap(lwp: Lwp, m: msg.VmspaceMmap) -> Result:
    async def call(ve: VmspaceEntry) -> Result:
        return _errno(
            *await kern_mmap(
                ve.vmspace, lwp.proc, m.addr, m.length, m.prot, m.flags, m.fd, m.offset
            )
        )

    return await _with_vmspace(lwp, m.id, call)


async def _vmspace_munmap(lwp: Lwp, m: msg.VmspaceMunmap) -> Result:
    async def call(ve: VmspaceEntry) -> Result:
        return _errno(await kern_munmap(ve.vmspace, m.addr, m.length))

    return await _with_vmspace(lwp, m.id, call)


async def _vmspace_mcontrol(lwp: Lwp, m: msg.VmspaceMcontrol) -> Result:
    async def call(ve: VmspaceEntry) -> Result:
        return _errno(await kern_mcontrol(ve.vmspace, m.addr, m.length, m.behav, m.value))

    return await _with_vmspace(lwp, m.id, call)


async def _vmspace_pread(lwp: Lwp, m: msg.VmspacePread) -> Result:
    async def call(ve: VmspaceEntry) -> Result:
        if lwp.proc.kernel.quirks.pwrite_einval or m.offset < 0:
            return _errno(Errno.EINVAL)
        buf = await vmspace_pread(ve.vmspace, m.offset, m.nbyte)
        return {"value": len(buf), "buf": buf}

    return await _with_vmspace(lwp, m.id, call)


async def _vmspace_pwrite(lwp: Lwp, m: msg.VmspacePwrite) -> Result:
    async def call(ve: VmspaceEntry) -> Result:
        if lwp.proc.kernel.quirks.pwrite_einval or m.offset < 0:
            return _errno(Errno.EINVAL)
        return _errno(0, await vmspace_pwrite(ve.vmspace, m.offset, m.buf))

    return await _with_vmspace(lwp, m.id, call)


# The vkernel's own address space.


async def _mmap(lwp: Lwp, m: msg.Mmap) -> Result:
    call = sys_mmap(lwp.proc, m.addr, m.length, m.prot, m.flags, m.fd, m.offset)
    return _errno(*await ktrace(lwp, m, call))


async def _pread(lwp: Lwp, m: msg.Pread) -> Result:
    """kern_preadv of one page: the bytes come from the file, and not by way of its object, which
    nobody maps; uiomove faults as the vkernel would."""
    file = lwp.proc.files.get(m.fd)
    if file is None or not file.fread:
        return _errno(Errno.EBADF)
    if m.offset < 0 or m.offset & PAGE_MASK or m.addr & PAGE_MASK:
        return _errno(Errno.EINVAL)
    content = await file.vnode.read_page(m.offset >> PAGE_SHIFT)
    try:
        await lwp.cpu.fill_page(m.addr, content)
    except Fault:
        return _errno(Errno.EFAULT)
    return _errno(0, max(0, min(PAGE_SIZE, file.vnode.size - m.offset)))


async def _pwrite(lwp: Lwp, m: msg.Pwrite) -> Result:
    """kern_pwritev of one page, which the file has already: it does not grow."""
    file = lwp.proc.files.get(m.fd)
    if file is None or not file.fwrite:
        return _errno(Errno.EBADF)
    size = file.vnode.size
    if not 0 <= m.offset < size or m.offset & PAGE_MASK or m.addr & PAGE_MASK:
        return _errno(Errno.EINVAL)
    try:
        content = await lwp.cpu.take_page(m.addr)
    except Fault:
        return _errno(Errno.EFAULT)
    await file.vnode.write_page(m.offset >> PAGE_SHIFT, content)
    return _errno(0, min(PAGE_SIZE, size - m.offset))


async def _munmap(lwp: Lwp, m: msg.Munmap) -> Result:
    call = kern_munmap(lwp.proc.p_vmspace, m.addr, m.length)
    return _errno(*await ktrace(lwp, m, call))


async def _mcontrol(lwp: Lwp, m: msg.Mcontrol) -> Result:
    return _errno(await sys_mcontrol(lwp.proc, m.addr, m.length, m.behav, m.value))


async def _madvise(lwp: Lwp, m: msg.Madvise) -> Result:
    return _errno(*await ktrace(lwp, m, sys_madvise(lwp.proc, m.addr, m.length, m.behav)))


async def _msync(lwp: Lwp, m: msg.Msync) -> Result:
    return _errno(*await ktrace(lwp, m, sys_msync(lwp.proc, m.addr, m.length, m.flags)))


async def _mprotect(lwp: Lwp, m: Mprotect) -> Result:
    return _errno(*await ktrace(lwp, m, sys_mprotect(lwp.proc, m.addr, m.length, m.prot)))


async def _mlock(lwp: Lwp, m: Mlock) -> Result:
    return _errno(*await ktrace(lwp, m, sys_mlock(lwp.proc, m.addr, m.length)))


async def _munlock(lwp: Lwp, m: Munlock) -> Result:
    return _errno(*await ktrace(lwp, m, sys_munlock(lwp.proc, m.addr, m.length)))


# The rest.


async def _fork(lwp: Lwp, m: Fork) -> Result:
    """kern_fork.c:sys_fork."""

    async def call() -> tuple[int, int]:
        child = await fork1(lwp.proc)
        if child is None:
            return Errno.EAGAIN, 0
        lwp.proc.kernel.emit("user.fork", str(lwp.proc.pid), lwp.tid, str(child.pid))
        proc_start(child)
        return 0, child.pid

    return _errno(*await ktrace(lwp, m, call()))


async def _sysctl(lwp: Lwp, m: msg.Sysctl) -> Result:
    """kern_sysctl.c:sysctl_root: only root may write, and a vkernel is a user's process."""
    table = lwp.proc.kernel.vmmeter.sysctls
    try:
        old = sysctl(table, m.name)
        return _errno(Errno.EPERM if m.new is not None else 0, old)
    except SysctlError as error:
        return _errno(error.errno)


async def _kill(lwp: Lwp, m: msg.Kill) -> Result:
    if not 0 <= m.signo <= NSIG:
        return _errno(Errno.EINVAL)
    for target in lwp.proc.lwps:
        if target.tid == m.target:
            if m.signo:
                await lwpsignal(target, m.signo)
            return _errno(0)
    return _errno(Errno.ESRCH)


async def _exit(lwp: Lwp, m: msg.Exit) -> Result:
    return _errno(0)


async def _cpu_ops(lwp: Lwp, m: msg.CpuOps) -> Result:
    """Not a system call: loads and stores of the guest kernel. EFAULT: `value` is the index of the
    operation that failed; those before it are done."""
    values: list[int] = []
    try:
        for op in m.ops:
            if op.va & 7:
                raise Fault(op.va, 0, 0)
            values.append(await _cpu_op(lwp, op))
    except Fault as fault:
        who = str(lwp.proc.pid)
        lwp.proc.kernel.emit("user.fault", lwp.id, who, fault.va, fault.fault_type)
        return {"errno": int(Errno.EFAULT), "value": len(values), "values": tuple(values)}
    return {"values": tuple(values)}


async def _cpu_op(lwp: Lwp, op: MemOp) -> int:
    cpu = lwp.cpu
    value: int = 0
    if op.op == Mem.LOAD:
        value = await cpu.load(op.va)
    elif op.op == Mem.STORE:
        await cpu.store(op.va, op.a)
    elif op.op == Mem.CMPSET:
        value = int(await cpu.cmpset(op.va, op.a, op.b))
    elif op.op == Mem.SWAP:
        value = await cpu.swap(op.va, op.a)
    elif op.op in (Mem.OR, Mem.ANDN):
        value = await cpu.rmw(op.va, "or" if op.op == Mem.OR else "andn", op.a)
    elif op.op == Mem.ZERO:
        await cpu.zero_page(op.va)
    elif op.op == Mem.FXSAVE:
        await cpu.fxsave(op.va, bool(op.a))
    elif op.op == Mem.FXRSTOR:
        await cpu.fxrstor(op.va, bool(op.a))
    elif op.op == Mem.FNINIT:
        cpu.unicorn.fninit()
    elif op.op == Mem.CPUID:
        _, _, ecx, edx = cpuid(op.a)
        value = ecx << 32 | edx
    else:
        await cpu.copy_page(op.va, op.a)
    return value


SYSCALLS: dict[type[msg.Request], Handler] = {
    msg.VmspaceCreate: _vmspace_create,
    msg.VmspaceDestroy: _vmspace_destroy,
    msg.VmspaceCtl: _vmspace_ctl,
    msg.VmspaceMmap: _vmspace_mmap,
    msg.VmspaceMunmap: _vmspace_munmap,
    msg.VmspaceMcontrol: _vmspace_mcontrol,
    msg.VmspacePread: _vmspace_pread,
    msg.VmspacePwrite: _vmspace_pwrite,
    msg.Mmap: _mmap,
    msg.Pread: _pread,
    msg.Pwrite: _pwrite,
    msg.Munmap: _munmap,
    msg.Mcontrol: _mcontrol,
    msg.Madvise: _madvise,
    msg.Msync: _msync,
    Mprotect: _mprotect,
    Mlock: _mlock,
    Munlock: _munlock,
    Fork: _fork,
    msg.Sysctl: _sysctl,
    msg.Kill: _kill,
    msg.Exit: _exit,
    msg.CpuOps: _cpu_ops,
}
# Its name in the events, and what serves it.
SYSENT: dict[type[msg.Request], tuple[Any, Handler]] = {
    kind: (kind.__struct_config__.tag, call) for kind, call in SYSCALLS.items()
}
