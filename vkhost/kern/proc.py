"""The life of a vkernel's process on the host: made, killed, gone.

DragonFly sys/kern/kern_fork.c, kern_exit.c:exit1, kern_sig.c:killproc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.messages import MEMIMAGE_FD
from vkprotocol.vkernel import SIGKILL

from vkhost.kern.lwp import File, Lwp, Proc, lwpsignal
from vkhost.pc64.pmap_switch import swtch_out
from vkhost.vm.vm_object import vm_object_reference
from vkhost.vm.vm_object_page import vm_object_deallocate
from vkhost.vm.vm_vmspace import vkernel_exit, vkernel_lwp_exit
from vkhost.vm.vmspace import Vmspace, vmspace_alloc, vmspace_fork, vmspace_rel

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.pc64.cpu import Cpu
    from vkhost.vm.vnode import Vnode

KILLED: Final = object()  # in the request Mailbox of an lwp: there is nothing to wait for


def idle_cpus(kernel: Kernel) -> list[Cpu]:
    """CPUs that no lwp has been given."""
    taken = {lwp.cpu.id for proc in kernel.procs if not proc.zombie for lwp in proc.lwps}
    return [cpu for cpu in kernel.cpus if cpu.id not in taken]


def _next_pid(kernel: Kernel) -> int:
    first_pid = 100
    return 1 + max((proc.pid for proc in kernel.procs), default=first_pid - 1)


def proc_create(
    kernel: Kernel, name: str, image: Vnode | None, vcpus: int, vmspace: Vmspace | None = None
) -> Proc | None:
    """A process with this address space or an empty one, the memory image as MEMIMAGE_FD, and a
    thread on a CPU of its own for each virtual CPU. None: there are not so many CPUs."""
    cpus = idle_cpus(kernel)
    if len(cpus) < vcpus:
        return None
    pid = _next_pid(kernel)
    if vmspace is None:
        pmap_id = f"{name}.{pid}" if name in kernel.pmaps else name
        vmspace = vmspace_alloc(kernel, name, pmap_id=pmap_id)
    proc = Proc(kernel, pid, name, vmspace)
    proc.p_vmspace.vm_map.proc = proc
    if image is not None:
        proc.files[MEMIMAGE_FD] = File(image)
    proc.lwps = [Lwp(proc, tid, cpus[tid]) for tid in range(vcpus)]
    proc.nlwps.state = vcpus
    proc.p_vmspace.pmap.multi = vcpus > 1
    kernel.procs.append(proc)
    kernel.emit("proc.create", pid, proc.p_vmspace.pmap.id)
    return proc


async def fork1(parent: Proc) -> Proc | None:
    """kern_fork.c:fork1, of a process with one thread that is no vkernel. None: no CPU is idle."""
    kernel = parent.kernel
    vmspace = await vmspace_fork(parent.p_vmspace, parent.name)
    child = proc_create(kernel, f"{parent.name}.{_next_pid(kernel)}", None, 1, vmspace)
    if child is None:
        await vmspace_rel(vmspace)
        return None
    for fd, file in sorted(parent.files.items()):
        await file.vnode.opencount.add(1)
        child.files[fd] = file
    return child


async def killproc(proc: Proc) -> None:
    """SIGKILL to every thread, wherever it is. Its guest's next reply is a Goodbye."""
    if proc.zombie:
        return
    await proc.killed.store(True)
    for lwp in proc.lwps:
        await lwpsignal(lwp, SIGKILL)
        await lwp.requests.send(KILLED)


async def lwp_exit(lwp: Lwp) -> None:
    """The thread is gone; the last one takes the process with it.

    It is off its CPU before it is counted out: the last one removes the PTEs without IPIs
    (pmap_remove_pages), and nobody may be using them by then.
    """
    await vkernel_lwp_exit(lwp)
    await swtch_out(lwp)
    lwp.gone = True
    if await lwp.proc.nlwps.add(-1) == 1:
        await _exit1(lwp.proc)


async def lwp_reap(lwp: Lwp) -> None:
    """Its kernel thread has ended in the midst of something. By another one: what is left to do."""
    if not lwp.gone:
        await lwp_exit(lwp)
    elif not await lwp.proc.nlwps.load() and not lwp.proc.zombie:
        await _exit1(lwp.proc)


async def _exit1(proc: Proc) -> None:
    """What is left is a zombie: a pid, and Mailboxes that nobody reads."""
    await vkernel_exit(proc)
    await vmspace_rel(proc.p_vmspace)
    for _, file in sorted(proc.files.items()):
        await vn_close(file.vnode)
    proc.files.clear()
    proc.zombie = True


async def vn_close(vp: Vnode) -> None:
    """The last descriptor of an unlinked file takes the file with it, unless it is still mapped:
    then the last mapping does."""
    if await vp.opencount.add(-1) != 1:
        return
    await vp.lock.acquire_exclusive()
    obj = vp.object
    await vp.lock.release()
    if obj is not None:
        await vm_object_reference(obj)
        await vm_object_deallocate(obj)
    vp.close()
