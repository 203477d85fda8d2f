"""vmspace_create, vmspace_destroy and their kin: the address spaces a vkernel makes for its guests.

They hang off the process by an opaque id, under vkp->token. Two counts keep an entry: `refs`, the
calls in flight and the virtual CPUs running in it, which vmspace_destroy demands to be nobody but
itself; and `cache_refs`, the tree and every lwp whose last entry it was (ve_cache).

DragonFly sys/vm/vm_vmspace.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Cell, fresh_key
from vkprotocol.errno import Errno

from vkhost.kern.lwp import Lwp, Proc, VkernelLwp, VkernelProc
from vkhost.kern.panic import kkassert, panic
from vkhost.pc64.pmap_switch import pmap_setlwpvm
from vkhost.vm.vmspace import Vmspace, vmspace_alloc, vmspace_rel

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

VKE_REF_DELETED = 0x80000000


class VmspaceEntry:
    """struct vmspace_entry. Both counts are atomic. Deletion sets VKE_REF_DELETED in the step in
    which refs becomes that of the deleter alone, so no later reference is taken for a good one."""

    __slots__ = ("cache_refs", "id", "proc", "refs", "vmspace")

    def __init__(self, proc: Proc, vmspace_id: int, vmspace: Vmspace) -> None:
        key = fresh_key("ve")
        self.proc = proc
        self.id = vmspace_id
        self.vmspace = vmspace
        self.refs = Cell((*key, "refs"), 0)
        self.cache_refs = Cell((*key, "cache_refs"), 1)

    def emit_refs(self) -> None:
        """Of the entry that has the id now: a deleted one may have had it before."""
        if not self.refs.state & VKE_REF_DELETED:
            self.proc.kernel.emit("vmspace.ref", self.proc.pid, self.id, self.refs.state)


def vkernel_enabled(kernel: Kernel) -> bool:
    """vm.vkernel_enable."""
    return kernel.config.vkernel_enable and bool(kernel.vmmeter.tunables["vkernel_enable"])


async def vmspace_create(lwp: Lwp, vmspace_id: int) -> int:
    """sys_vmspace_create: 0, EOPNOTSUPP or EEXIST; ENOMEM at our own bound on their number.

    `type` and `data` are looked at by nobody, and an id of 0 is as good as any.
    """
    proc = lwp.proc
    kernel = proc.kernel
    if not vkernel_enabled(kernel):
        return Errno.EOPNOTSUPP
    vkp = await _vkernel_proc(proc)
    name = f"{proc.name}:{vmspace_id:#x}"
    ve = VmspaceEntry(proc, vmspace_id, vmspace_alloc(kernel, name, proc))
    async with vkp.token:
        error = 0
        if len(vkp.root) >= proc.max_vmspaces:
            error = Errno.ENOMEM
        elif vmspace_id in vkp.root:
            error = Errno.EEXIST
        else:
            vkp.root[vmspace_id] = ve
            kernel.emit("vmspace.create", proc.pid, vmspace_id, ve.vmspace.pmap.id)
    if error:
        await vmspace_rel(ve.vmspace)
    return error


async def _vkernel_proc(proc: Proc) -> VkernelProc:
    """p_vkernel, made by the first call; of racing creators one wins, under p_token."""
    vkp: VkernelProc | None = await proc.p_vkernel.load()
    if vkp is None:
        async with proc.p_token:
            vkp = await proc.p_vkernel.load()
            if vkp is None:
                vkp = VkernelProc(proc)
                await proc.p_vkernel.store(vkp)
    return vkp


async def vmspace_destroy(lwp: Lwp, vmspace_id: int) -> int:
    """sys_vmspace_destroy: 0, EINVAL, ENOENT, or EBUSY while anybody else has a reference.

    The kernel forgets to drop the lookup's reference on EBUSY: from then on nobody can destroy the
    vmspace, and the exit of the process panics (W22).
    """
    proc = lwp.proc
    vkp: VkernelProc | None = await proc.p_vkernel.load()
    if vkp is None:
        return Errno.EINVAL
    async with vkp.token:
        ve = await vkernel_find_vmspace(lwp, vkp, vmspace_id, havetoken=True)
        if ve is None:
            return Errno.ENOENT
        error = await _vmspace_entry_delete(ve, vkp, 1)
        if not error:
            await vmspace_entry_cache_drop(ve)
        elif not proc.kernel.quirks.ebusy_ref_leak:
            await vmspace_entry_drop(ve)
    return error


async def _vmspace_entry_delete(ve: VmspaceEntry, vkp: VkernelProc, refs: int) -> int:
    """vmspace_entry_delete: EBUSY unless `refs` references, the caller's, are all there are.

    Precondition: vkp.token. The pages go without IPIs: nobody runs there, and who did has loaded
    another %cr3 since (W23).
    """
    if "destroy-ignores-refs" in ve.proc.kernel.mutants:
        refs = int(await ve.refs.load())
    deleted = await ve.refs.cmpset(refs, VKE_REF_DELETED)
    if not deleted:
        ve.proc.kernel.emit("vmspace.destroy", ve.proc.pid, ve.id, int(Errno.EBUSY))
        return Errno.EBUSY
    del vkp.root[ve.id]
    ve.proc.kernel.emit("vmspace.destroy", ve.proc.pid, ve.id, 0)
    await vmspace_rel(ve.vmspace)
    return 0


async def vkernel_find_vmspace(
    lwp: Lwp, vkp: VkernelProc, vmspace_id: int, *, havetoken: bool = False
) -> VmspaceEntry | None:
    """The entry, with one reference more; from the lwp's cache if it was the last one used."""
    vklp = lwp.lwp_vkernel
    if vklp is not None and vklp.ve_cache is not None and vklp.ve_cache.id == vmspace_id:
        ve = vklp.ve_cache
        live = await _ref_live(ve)
        if live or "ve-cache-without-deleted-test" in lwp.proc.kernel.mutants:
            return ve
        # Destroyed meanwhile, and perhaps created anew under the same id (W44).
        vklp.ve_cache = None
        await vmspace_entry_drop(ve)
        await vmspace_entry_cache_drop(ve)
    if not havetoken:
        await vkp.token.acquire_shared()
    found = vkp.root.get(vmspace_id)
    if found is not None and not await _ref_live(found):
        await vmspace_entry_drop(found)
        found = None
    if not havetoken:
        await vkp.token.release()
    return found


async def _ref_live(ve: VmspaceEntry) -> bool:
    """Take a reference; False if the entry had been deleted by then."""
    before: int = await ve.refs.add(1)
    ve.emit_refs()
    return not before & VKE_REF_DELETED


async def vmspace_entry_drop(ve: VmspaceEntry) -> None:
    before = await ve.refs.add(-1)
    ve.emit_refs()
    kkassert(ve.proc.kernel, before & ~VKE_REF_DELETED, "vmspace_entry_drop: refs < 0")


async def vmspace_entry_cache_drop(ve: VmspaceEntry) -> None:
    """The last of these frees the entry, which must be deleted by then."""
    before = await ve.cache_refs.add(-1)
    if before == 1:
        refs = await ve.refs.load()
        kkassert(ve.proc.kernel, refs & VKE_REF_DELETED, "vmspace_entry_cache_drop: not deleted")


async def vmspace_entry_cache(lwp: Lwp, ve: VmspaceEntry) -> VkernelLwp:
    """RUN makes `ve` the entry this lwp looks at first."""
    vklp = lwp.lwp_vkernel
    if vklp is None:
        vklp = lwp.lwp_vkernel = VkernelLwp()
    if vklp.ve_cache is not ve:
        await ve.cache_refs.add(1)
        old, vklp.ve_cache = vklp.ve_cache, ve
        if old is not None:
            await vmspace_entry_cache_drop(old)
    return vklp


async def vkernel_lwp_exit(lwp: Lwp) -> None:
    """The thread ends, by its own will or killed in the middle of RUN."""
    vklp = lwp.lwp_vkernel
    if vklp is None:
        return
    ve = vklp.ve
    if ve is not None:
        lwp.proc.kernel.emit("console", f"Warning, pid {lwp.proc.pid} killed with active VC!")
        await pmap_setlwpvm(lwp, lwp.proc.p_vmspace)
        vklp.ve = None
        await vmspace_entry_drop(ve)
    if vklp.ve_cache is not None:
        ve, vklp.ve_cache = vklp.ve_cache, None
        await vmspace_entry_cache_drop(ve)
    lwp.lwp_vkernel = None


async def vkernel_exit(proc: Proc) -> None:
    """The process ends, its threads have ended: destroy what vmspaces are left.

    Each must have no reference at all. One that an EBUSY has leaked takes the host down (W22).
    """
    vkp: VkernelProc | None = await proc.p_vkernel.load()
    if vkp is None:
        return
    await proc.p_vkernel.store(None)
    if await vkp.refs.add(-1) != 1:
        return
    async with vkp.token:
        for _, ve in sorted(vkp.root.items()):
            if await _vmspace_entry_delete(ve, vkp, 0):
                _invalid_refs(ve)
                await _vmspace_entry_delete(ve, vkp, ve.refs.state)
            await vmspace_entry_cache_drop(ve)


def _invalid_refs(ve: VmspaceEntry) -> None:
    """The panic of the host; or whoever keeps it from one is told, and the entry goes all the same:
    nobody of the process is left to use it."""
    kernel = ve.proc.kernel
    message = f"rb_vmspace_delete: invalid refs {ve.refs.state}"
    if kernel.on_leak is None:
        panic(kernel, message)
    kernel.on_leak(ve.proc, message)
