"""vm_map: the address space of a vmspace, a tree of entries under a read/write lock.

An entry maps [start, end) to an object through its `ba`, the head of a chain of vm_map_backing: a
page the first object lacks is looked for in the next. Every vm_map_backing hangs on its object's
backing_list, which is all the reverse map of the extent-scan kernels knows.

DragonFly sys/vm/vm_map.c:vm_map_backing_attach, vm_map_backing_detach; vm_map.h. Left
out: submaps, uksmaps, auto-grow stacks, partitioning, coalescing of anonymous objects, and
map->token, which covers here nothing that the map lock does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sortedcontainers import SortedKeyList
from vkprotocol.effects import Cell, Lock, RWLock, Thread, WaitChannel, fresh_key
from vkprotocol.guarded import guarded_by
from vkprotocol.param import atop

from vkhost.kern.lockorder import ILOCK_SPIN, MAP_LOCK
from vkhost.kern.panic import panic
from vkhost.vm.vm import (
    COWF_COPY_ON_WRITE,
    COWF_DISABLE_COREDUMP,
    COWF_DISABLE_SYNCER,
    KERN_INVALID_ADDRESS,
    KERN_NO_SPACE,
    KERN_SUCCESS,
    MAP_ENTRY_COW,
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_NEEDS_WAKEUP,
    MAP_ENTRY_NOCOREDUMP,
    MAP_ENTRY_NOSYNC,
    MAP_ENTRY_VPAGETABLE_WIRED,
    VM_INHERIT_COPY,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_VPAGETABLE,
)

if TYPE_CHECKING:
    from vkhost.kern.lwp import Proc
    from vkhost.kernel import Kernel
    from vkhost.pc64.pmap import Pmap
    from vkhost.vm.vm_map_interlock import VmMapIlock
    from vkhost.vm.vm_object import VmObject

MAPTYPE_NAMES = {VM_MAPTYPE_NORMAL: "normal", VM_MAPTYPE_VPAGETABLE: "vpagetable"}


class VmMapBacking:
    """One extent: bytes [start, end) of `pmap` show `object` from byte `offset` on.

    start, end, offset are changed under the map lock and the object's backing_lk, so that either
    suffices to read them. `excl_heur` is VM_MAP_BACK_EXCL_HEUR, a hint written by faults that
    share the map lock.
    """

    __slots__ = (
        "backing_ba", "backing_count", "end", "excl_heur", "maptype", "object", "offset", "pmap",
        "start",
    )  # fmt: skip

    def __init__(
        self, pmap: Pmap, maptype: int, start: int, end: int, obj: VmObject | None, offset: int
    ) -> None:
        self.pmap = pmap
        self.maptype = maptype
        self.start = start
        self.end = end
        self.object = obj
        self.offset = offset
        self.backing_ba: VmMapBacking | None = None
        self.backing_count = 0
        self.excl_heur = Cell(fresh_key("excl_heur"), False)


class VmMapEntry:
    """A mapping. Everything in it is guarded by the map lock."""

    __slots__ = (
        "ba", "eflags", "inheritance", "maptype", "master_pde", "max_protection", "protection",
        "wired_count",
    )  # fmt: skip

    def __init__(self, ba: VmMapBacking, protection: int, max_protection: int, eflags: int) -> None:
        self.ba = ba
        self.maptype = ba.maptype
        self.protection = protection
        self.max_protection = max_protection
        self.inheritance = VM_INHERIT_COPY
        self.eflags = eflags
        self.wired_count = 0
        self.master_pde = 0  # aux.master_pde: the root of the guest's page table, set by SETMAP

    @property
    def start(self) -> int:
        return self.ba.start

    @property
    def end(self) -> int:
        return self.ba.end

    def backings(self) -> Iterator[VmMapBacking]:
        """The chain, the first object's first."""
        ba: VmMapBacking | None = self.ba
        while ba is not None:
            yield ba
            ba = ba.backing_ba

    def __repr__(self) -> str:
        return f"<{MAPTYPE_NAMES[self.maptype]} {self.start:#x}-{self.end:#x}>"


def entry_start(entry: VmMapEntry) -> int:
    return entry.ba.start


def _locked_or_private(obj: Any, thread: Thread, writing: bool) -> bool:
    assert thread.held is not None
    if obj.private:
        return True
    held = any(lock is obj.lock for lock in thread.held)
    return held and (not writing or obj.lock.state[0] == thread.tid)


@guarded_by("lock", "entries", "freehint", "size", guard=_locked_or_private)
@guarded_by("ilock_spin", "ilock_base")
class VmMap:
    """The entries of one address space.

    LOCKING: `lock` for entries, freehint and size; `ilock_spin` for the list of interlocks, which
    is there because faults and MADV_INVAL both hold `lock` shared.

    `entries` is ordered by start: an entry whose start changes is taken out meanwhile. `freehint`:
    (length, alignment) -> an address below which nothing of that kind fits (struct
    vm_map_freehint), so that mmap does not walk over all that is mapped.
    """

    __slots__ = (
        "entries", "freehint", "ilock_base", "ilock_spin", "kernel", "lock", "max_offset",
        "min_offset", "pmap", "private", "proc", "size", "transition",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, pmap: Pmap, min_offset: int, max_offset: int, proc: Proc | None = None
    ) -> None:
        self.kernel = kernel
        self.pmap = pmap
        self.private = False  # being filled by fork: nobody else knows it yet
        self.proc = proc  # whose faults these are, and whose memory it is accounted to
        self.min_offset = min_offset
        self.max_offset = max_offset
        self.lock = RWLock(("vm_map", pmap.id), rank=MAP_LOCK)
        self.entries = SortedKeyList(key=entry_start)  # of VmMapEntry; guarded_by lock
        self.freehint: dict[tuple[int, int], int] = {}  # guarded_by lock
        self.size = 0  # bytes mapped, guarded_by lock
        self.transition = WaitChannel(("vm_map.transition", pmap.id))
        self.ilock_spin = Lock(("ilock_spin", pmap.id), rank=ILOCK_SPIN)
        self.ilock_base: VmMapIlock | None = None  # guarded_by ilock_spin

    @property
    def pid(self) -> int:
        return -1 if self.proc is None else self.proc.pid

    def range_check(self, start: int, end: int) -> tuple[int, int]:
        """VM_MAP_RANGE_CHECK: the part of [start, end) that is in the map."""
        start = max(start, self.min_offset)
        end = min(end, self.max_offset)
        return min(start, end), end


async def vm_map_lock(vm_map: VmMap) -> None:
    vm_map.kernel.emit("map.lock.wait", vm_map.pmap.id, True)
    await vm_map.lock.acquire_exclusive()
    vm_map.kernel.emit("map.lock", vm_map.pmap.id, True)


async def vm_map_lock_read(vm_map: VmMap) -> None:
    vm_map.kernel.emit("map.lock.wait", vm_map.pmap.id, False)
    await vm_map.lock.acquire_shared()
    vm_map.kernel.emit("map.lock", vm_map.pmap.id, False)


async def vm_map_lock_upgrade(vm_map: VmMap) -> bool:
    """True: exclusive now. False: the lock is lost, and what was read under it is stale."""
    upgraded: bool = await vm_map.lock.try_upgrade()
    if upgraded:
        vm_map.kernel.emit("map.lock", vm_map.pmap.id, True)
    else:
        vm_map.kernel.emit("map.unlock", vm_map.pmap.id)
    return upgraded


async def vm_map_lock_downgrade(vm_map: VmMap) -> None:
    await vm_map.lock.downgrade()
    vm_map.kernel.emit("map.lock", vm_map.pmap.id, False)


async def vm_map_unlock(vm_map: VmMap) -> None:
    await vm_map.lock.release()
    vm_map.kernel.emit("map.unlock", vm_map.pmap.id)


async def vm_map_transition_wait(vm_map: VmMap, entry: VmMapEntry) -> None:
    """vm_map.c:vm_map_transition_wait, "vment": until `entry` is in nobody's hands. The exclusive
    lock is lost meanwhile, and what was read under it is stale."""
    entry.eflags |= MAP_ENTRY_NEEDS_WAKEUP
    await vm_map.transition.enqueue()
    await vm_map_unlock(vm_map)
    await vm_map.transition.sleep()
    await vm_map_lock(vm_map)


def vm_map_lookup_entry(vm_map: VmMap, va: int) -> VmMapEntry | None:
    """The entry that contains va. Precondition: the map is locked."""
    entries = vm_map.entries
    i = entries.bisect_key_right(va)
    if i:
        entry: VmMapEntry = entries[i - 1]
        if va < entry.ba.end:
            return entry
    return None


def entries_in(vm_map: VmMap, start: int, end: int) -> list[VmMapEntry]:
    """The entries that have a part in [start, end). Precondition: the map is locked."""
    first = vm_map_lookup_entry(vm_map, start)
    if first is not None:
        start = first.start
    return list(vm_map.entries.irange_key(start, end, inclusive=(True, False)))


def vm_map_entry_link(vm_map: VmMap, entry: VmMapEntry) -> None:
    """Precondition: exclusive lock, and nothing is mapped there."""
    vm_map.entries.add(entry)


def vm_map_entry_unlink(vm_map: VmMap, entry: VmMapEntry) -> None:
    if entry.eflags & MAP_ENTRY_IN_TRANSITION:
        panic(vm_map.kernel, f"vm_map_entry_unlink: attempt to mess with locked entry! {entry!r}")
    vm_map.entries.remove(entry)


def vm_map_findspace(vm_map: VmMap, start: int, length: int, align: int) -> int | None:
    """First fit at or above `start`, None if there is no room. Precondition: exclusive lock."""
    start = max(start, vm_map.min_offset)
    kind = (length, align)
    hint = vm_map.freehint.pop(kind, vm_map.min_offset)
    lowest = start <= hint  # what is found is then the first fit of all
    start = max(start, hint)
    first = vm_map_lookup_entry(vm_map, start)
    if first is not None:
        start = first.end
    for entry in vm_map.entries.irange_key(start):
        start = (start + align - 1) // align * align
        if start + length <= entry.start:
            break
        start = max(start, entry.end)
    start = (start + align - 1) // align * align
    vm_map.freehint[kind] = start if lowest else hint  # the latest used is the last
    freehints = 4  # VM_MAP_FFCOUNT
    if len(vm_map.freehint) > freehints:
        del vm_map.freehint[next(iter(vm_map.freehint))]
    return start if start + length <= vm_map.max_offset else None


def vm_map_freehint_hole(vm_map: VmMap, start: int) -> None:
    """A hole was made at `start`. Precondition: exclusive lock, and it is off the map."""
    i = vm_map.entries.bisect_key_left(start)
    start = vm_map.entries[i - 1].end if i else vm_map.min_offset
    for kind, hint in vm_map.freehint.items():
        vm_map.freehint[kind] = min(hint, start)


async def vm_map_backing_attach(ba: VmMapBacking) -> None:
    assert ba.object is not None
    async with ba.object.backing_lk:
        ba.object.backing_list.append(ba)


async def vm_map_backing_detach(ba: VmMapBacking) -> None:
    assert ba.object is not None
    async with ba.object.backing_lk:
        ba.object.backing_list.remove(ba)


async def vm_map_insert(
    vm_map: VmMap,
    obj: VmObject | None,
    offset: int,
    start: int,
    end: int,
    maptype: int,
    prot: int,
    max_prot: int,
    cow: int,
) -> int:
    """Map [start, end) to `obj` (None: made by the first fault), whose reference becomes ours.

    Precondition: exclusive lock. No prefault is ever attempted on a VPAGETABLE entry (W42).
    """
    if start < vm_map.min_offset or end > vm_map.max_offset or start >= end:
        return KERN_INVALID_ADDRESS
    if entries_in(vm_map, start, end):
        return KERN_NO_SPACE
    entry = VmMapEntry(
        VmMapBacking(vm_map.pmap, maptype, start, end, obj, offset), prot, max_prot, _eflags(cow)
    )
    if maptype == VM_MAPTYPE_VPAGETABLE and vm_map.kernel.rmap.wires_vpagetable:
        entry.eflags |= MAP_ENTRY_VPAGETABLE_WIRED
        entry.wired_count = 1
    if obj is not None:
        await vm_map_backing_attach(entry.ba)
        if await obj.ref_count.load() > 1:
            await obj.onemapping.store(False)
    vm_map_entry_link(vm_map, entry)
    vm_map.size += end - start
    emit_map_insert(vm_map, entry)
    return KERN_SUCCESS


def _eflags(cow: int) -> int:
    eflags = 0
    if cow & COWF_COPY_ON_WRITE:
        eflags |= MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY
    if cow & COWF_DISABLE_SYNCER:
        eflags |= MAP_ENTRY_NOSYNC
    if cow & COWF_DISABLE_COREDUMP:
        eflags |= MAP_ENTRY_NOCOREDUMP
    return eflags


def emit_map_insert(vm_map: VmMap, entry: VmMapEntry) -> None:
    obj = entry.ba.object
    vm_map.kernel.emit(
        "map.insert", vm_map.pmap.id, entry.start, entry.end, MAPTYPE_NAMES[entry.maptype],
        -1 if obj is None else obj.id, atop(entry.ba.offset),
    )  # fmt: skip


async def vm_map_find(
    vm_map: VmMap,
    obj: VmObject | None,
    offset: int,
    addr: int,
    length: int,
    align: int,
    fitit: bool,
    maptype: int,
    prot: int,
    max_prot: int,
    cow: int,
) -> tuple[int, int]:
    """Insert at `addr`, or where there is room above it when `fitit`. (result, address)."""
    await vm_map_lock(vm_map)
    start: int | None = addr
    if fitit:
        start = vm_map_findspace(vm_map, addr, length, align)
    if start is None:
        result = KERN_NO_SPACE
    else:
        result = await vm_map_insert(
            vm_map, obj, offset, start, start + length, maptype, prot, max_prot, cow
        )
    await vm_map_unlock(vm_map)
    return result, start or 0


async def vm_map_check_protection(vm_map: VmMap, start: int, end: int, protection: int) -> bool:
    """Whether all of [start, end) is mapped and allows `protection`."""
    await vm_map_lock_read(vm_map)
    allowed = True
    for entry in entries_in(vm_map, start, end):
        if start >= end:
            break
        if start < entry.start or entry.protection & protection != protection:
            allowed = False
            break
        start = entry.end
    await vm_map_unlock(vm_map)
    return allowed and start >= end
