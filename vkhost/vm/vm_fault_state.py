"""struct faultstate: what one try of a fault holds, and how it lets go of it.

DragonFly sys/vm/vm_fault.c:unlock_things, cleanup_fault, release_page;
vnode_pager.c:vnode_pager_lock.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any

from vkprotocol.effects import Effect, RWLock, Step, took

from vkhost.kern.token import tsleep_until
from vkhost.vm.vm import FW_WIRED, VM_FAULT_WIRE_MASK, VM_PROT_NONE
from vkhost.vm.vm_map import VmMap, VmMapBacking, VmMapEntry, vm_map_unlock
from vkhost.vm.vm_object import OBJT_DEFAULT, OBJT_VNODE, VmObject
from vkhost.vm.vm_page import VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_alloc import vm_page_free
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_lru import vm_page_deactivate

if TYPE_CHECKING:
    from vkhost.pc64.cpu_access import Write
    from vkhost.vm.vm_map_interlock import VmMapIlock
    from vkhost.vm.vnode_pager import Vnode


class FaultState:
    """Local to the faulting thread. `first_shared` and `shared` outlive a retry: they are how a
    try that met more than a shared token could do tells the next one to ask for more."""

    __slots__ = (
        "ba", "collapsing", "entry", "excl_heur", "fault_flags", "first_ba", "first_ba_held",
        "first_m", "first_prot", "first_shared", "hardfault", "ilock", "kernel",
        "lookup_still_valid", "m", "msoftonly", "prot", "retry", "seen", "shared", "va", "vm_map",
        "vp", "wflags", "why", "write",
    )  # fmt: skip

    entry: VmMapEntry
    first_ba: VmMapBacking
    ba: VmMapBacking  # the layer being looked at; its token is held

    def __init__(self, vm_map: VmMap, va: int, fault_flags: int) -> None:
        self.kernel = vm_map.kernel
        self.vm_map = vm_map
        self.va = va
        self.fault_flags = fault_flags
        self.first_shared = self.shared = bool(self.kernel.vmmeter.tunables["shared_fault"])
        self.hardfault = 0
        self.collapsing = False  # for vm_fault_collapse, which keeps map lock and first token
        self.retry = 0
        self.why = ""  # what the last TRY_AGAIN was for
        self.ilock: VmMapIlock | None = None
        self.seen: Any = None  # what the reverse map remembers of this try's walk
        self.write: Write | None = None  # what the CPU was about to write, if it was
        self.reset()

    def reset(self) -> None:
        """RetryFault."""
        self.first_ba_held = False
        self.lookup_still_valid = False
        self.first_prot = self.prot = VM_PROT_NONE
        self.excl_heur = False  # the first backing's hint, as last seen or set
        self.wflags = 0
        self.seen = None
        self.m: VmPage | None = None  # hard-busied, or soft-busied when msoftonly
        self.first_m: VmPage | None = None  # busied: where a page found deeper would be copied to
        self.msoftonly = False
        self.vp: Vnode | None = None

    @property
    def trypager(self) -> bool:
        """TRYPAGER: the layer's pager might have the page. Who wires an entry that is not wired yet
        is not served from one."""
        served = not self.fault_flags & VM_FAULT_WIRE_MASK or self.wflags & FW_WIRED
        return bool(served) and self._object().type != OBJT_DEFAULT

    def _object(self) -> VmObject:
        assert self.ba.object is not None
        return self.ba.object


async def hold_first_object(fs: FaultState) -> None:
    """F5: the first object's token. May sleep."""
    obj = fs.first_ba.object
    assert obj is not None
    fs.excl_heur = await fs.first_ba.excl_heur.load()
    if fs.excl_heur:
        fs.first_shared = False  # the last fault here had to allocate: so may this one
    if fs.first_shared:
        await obj.token.acquire_shared()
    else:
        await obj.token.acquire()
    fs.first_ba_held = True


async def vnode_pager_lock(fs: FaultState) -> None:
    """F5: the vnode at the end of the chain, if there is one, shared. May sleep."""
    vp = _backing_vnode(fs.first_ba) if fs.vp is None else None
    if vp is not None:
        await _lock_shared(vp)
        fs.vp = vp


async def _lock_shared(vp: Vnode) -> None:
    """vget(LK_SHARED): a wait for the vnode is a sleep like any other, and loses the tokens."""
    while not await _try_shared(vp.lock):
        await tsleep_until(vp.lock, _may_share, "vget")


@coroutine
def _try_shared(lock: RWLock) -> Step:
    me = yield Effect(lock, "vget", write=False)
    if not _may_share(lock.state):
        return False
    if me.held is not None:
        took(me, lock)
    owner, readers, want = lock.state
    lock.state = (owner, tuple(sorted((*readers, me.tid))), want)
    return True


def _may_share(state: Any) -> bool:
    owner, _, want = state
    return owner is None and not want


def _backing_vnode(first_ba: VmMapBacking) -> Vnode | None:
    ba: VmMapBacking | None = first_ba
    while ba is not None:
        if ba.object is not None and ba.object.type == OBJT_VNODE:
            return ba.object.handle
        ba = ba.backing_ba
    return None


async def cleanup_fault(fs: FaultState) -> None:
    """Leave a deeper layer: free the page taken for a copy that was not made, drop the token."""
    if not fs.first_ba_held or fs.ba is fs.first_ba:
        return
    if fs.first_m is not None:
        if fs.first_m.valid == VM_PAGE_BITS_ALL:
            await vm_page_wakeup(fs.first_m)
        else:
            await vm_page_free(fs.first_m)
        fs.first_m = None
    assert fs.ba.object is not None
    await fs.ba.object.token.release()
    fs.ba = fs.first_ba


async def unlock_things(fs: FaultState) -> None:
    """Give up everything but the busied page and the interlock: token, map lock, vnode lock.

    The interlock is not ours to give up: it goes only when TRY_AGAIN has got back to vm_fault,
    after whatever the caller of this sleeps for (W30).
    """
    await cleanup_fault(fs)
    # unlock_map
    if fs.first_ba_held and not fs.collapsing:
        assert fs.first_ba.object is not None
        await fs.first_ba.object.token.release()
        fs.first_ba_held = False
    if fs.lookup_still_valid:
        await vm_map_unlock(fs.vm_map)
        fs.lookup_still_valid = False
    if fs.vp is not None:
        await fs.vp.unlock_shared()
        fs.vp = None


async def release_page(fs: FaultState) -> None:
    """Precondition: fs.m hard-busied; what the shortcut finds is entered as it is, or left."""
    assert fs.m is not None
    assert not fs.msoftonly
    await vm_page_deactivate(fs.m)
    await vm_page_wakeup(fs.m)
    fs.m = None
