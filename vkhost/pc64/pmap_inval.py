"""TLB shootdown: change a PTE, and have every CPU that may have it cached forget it.

DragonFly pc64 pmap_inval.c:pmap_inval_smp, pmap_inval_smp_cmpset, pmap_inval_intr.

Two ways of doing it (config.shootdown):

* rendezvous: what pc64 does. The CPUs are gathered first and stand still over swap and flush, so
  nobody ever sees the state in between: one step.
* stream: what others do. Swap the PTE, interrupt each CPU, wait until all have flushed. Between the
  swap and its flush a CPU goes on using the old translation; nothing may be concluded before the
  last acknowledgement.

CPULOCK_EXCL keeps CPUs that come to run on the pmap (pmap_switch.py) from loading %cr3 meanwhile.
Since 2019 a CPU that finds itself alone in pm_active does without both: it looks before it has the
lock, and takes it only for the pmap of a process with several threads (W48).
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from vkprotocol.effects import Also, Cell, Effect, Step, curthread, fresh_key
from vkprotocol.param import PAGE_SIZE

from vkhost.pc64.pmap import CPULOCK_EXCL, Pmap, not_excl
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.tlb import INVLTLB

if TYPE_CHECKING:
    from vkhost.pc64.cpu import Cpu

MAX_INVAL_PAGES: Final = 128  # more than that and the whole TLB goes


class InvalRequest:
    """pmap_inval_info: who is to flush what. `pending`: the CPUs that have not yet."""

    __slots__ = ("npgs", "pending", "pmap", "va")

    def __init__(self, pmap: Pmap, va: int, npgs: int, mask: int) -> None:
        self.pmap = pmap
        self.va = va
        self.npgs = npgs
        self.pending = Cell(fresh_key("inval"), mask)


def _is_zero(state: Any) -> bool:
    return not state


@coroutine
def pte_swap(pmap: Pmap, pte: Pte, new: int, generation: int, why: str) -> Step:
    """atomic_swap_long on a PTE, alone; the PTE before."""
    yield pte.install
    old = pte.put(new, generation)
    pmap.kernel.emit("pte.write", pmap.id, pte.va, old, new, why)
    return old


@coroutine
def pte_cmpset(pmap: Pmap, pte: Pte, old: int, new: int, why: str) -> Step:
    """atomic_cmpset_long on a PTE whose frame stays, alone."""
    yield pte.install
    return _cmpset(pmap, pte, old, new, why)


def _cmpset(pmap: Pmap, pte: Pte, old: int, new: int, why: str) -> bool:
    if pte.state != old:
        return False
    pte.put(new, pte.generation)
    pmap.kernel.emit("pte.write", pmap.id, pte.va, old, new, why)
    return True


@coroutine
def pte_clear_bits(pmap: Pmap, pte: Pte, bits: int, why: str) -> Step:
    """atomic_clear_long on a PTE, whatever it maps, alone; the PTE before."""
    yield pte.install
    old: int = pte.state
    if old & bits:
        pte.put(old & ~bits, pte.generation)
        pmap.kernel.emit("pte.write", pmap.id, pte.va, old, old & ~bits, why)
    return old


async def pmap_inval_smp(pmap: Pmap, pte: Pte, new: int, generation: int, why: str) -> int:
    """Swap a PTE and flush it everywhere; the PTE before, whose A and M are final."""
    old: int
    cpu = await _alone(pmap)
    if cpu is not None:
        await _interlock_threads(pmap)
        old = await pte_swap(pmap, pte, new, generation, why)
        await cpu.tlb.flush(pmap, pte.va)
        await _deinterlock_threads(pmap)
        return old
    if pmap.kernel.config.shootdown == "rendezvous":
        old = await _rendezvous(pmap, pte)
        pte.put(new, generation)
        pmap.kernel.emit("pte.write", pmap.id, pte.va, old, new, why)
        return old
    mask = await _interlock(pmap)
    if "pte-load-then-store" in pmap.kernel.mutants:
        old = await pte.load()
        await pte_swap(pmap, pte, new, generation, why)
    else:
        old = await pte_swap(pmap, pte, new, generation, why)
    if old:
        await _shoot_pte(pmap, mask, pte)
    await _deinterlock(pmap)
    return old


async def pmap_inval_smp_cmpset(pmap: Pmap, pte: Pte, old: int, new: int, why: str) -> bool:
    """The same if the PTE is still `old`; False when it is not."""
    cpu = await _alone(pmap)
    if cpu is not None:
        await _interlock_threads(pmap)
        done: bool = await pte_cmpset(pmap, pte, old, new, why)
        if done:
            await cpu.tlb.flush(pmap, pte.va)
        await _deinterlock_threads(pmap)
        return done
    if pmap.kernel.config.shootdown == "rendezvous":
        await _rendezvous(pmap, pte)
        return _cmpset(pmap, pte, old, new, why)
    mask = await _interlock(pmap)
    done = await pte_cmpset(pmap, pte, old, new, why)
    if done:
        await _shoot_pte(pmap, mask, pte)
    await _deinterlock(pmap)
    return done


async def _alone(pmap: Pmap) -> Cpu | None:
    """The CPU this runs on, if it is the only one in pm_active: a look without any lock."""
    kernel = pmap.kernel
    cpu = kernel.mycpu.get(curthread().tid)
    if cpu is None or pmap.users is not None or not kernel.quirks.inval_alone_unlocked:
        return None
    mask: int = await pmap.pm_active.load()
    return cpu if mask & ~CPULOCK_EXCL == cpu.mask else None


async def _interlock_threads(pmap: Pmap) -> None:
    if pmap.multi:
        await pmap.interlock()


async def _deinterlock_threads(pmap: Pmap) -> None:
    if pmap.multi:
        await pmap.deinterlock()


async def pmap_inval_range(pmap: Pmap, start: int, end: int) -> None:
    """pmap_invalidate_range: flush without changing any PTE."""
    mask = await _interlock(pmap)
    if (end - start) // PAGE_SIZE > MAX_INVAL_PAGES:
        await _shoot(pmap, mask, INVLTLB)
    else:
        for va in range(start, end, PAGE_SIZE):
            await _shoot(pmap, mask, va)
    await _deinterlock(pmap)


async def pmap_inval_walks(pmap: Pmap, start: int, end: int) -> None:
    """Flush what nested walks of the range have combined.

    Without CPULOCK_EXCL: what made it stale, an edit of a VPTE or of a root, has been done, so that
    a CPU that comes to run on the pmap meanwhile walks by it.
    """
    mask = await pmap.pm_active.load() & ~CPULOCK_EXCL
    npgs = (end - start) // PAGE_SIZE
    if npgs > MAX_INVAL_PAGES:
        await _shoot(pmap, mask, INVLTLB)
    elif npgs:
        await _shoot(pmap, mask, start, npgs)


async def pmap_inval_users(ept: Pmap) -> None:
    """Flush all that walks through a second stage have combined, of no PTE of it."""
    assert ept.users is not None
    await _shoot_users(ept, ept.users)


async def _shoot_pte(pmap: Pmap, mask: int, pte: Pte) -> None:
    if pmap.users is None:
        await _shoot(pmap, mask, pte.va)
    else:
        await _shoot_users(pmap, pmap.users)


async def _shoot_users(ept: Pmap, users: Cell) -> None:
    """A second-stage PTE has been changed: flush everything, on every CPU that runs a pmap whose
    walks lead through there. The TLB keeps no way back from a page to what it was combined to.

    A step for each of those pmaps; hardware's kernel has one mask of the CPUs in guest mode.
    """
    if "nested-reclaim-without-flush" in ept.kernel.mutants:
        return
    mask = 0
    for pmap in tuple(await users.load()):
        mask |= await pmap.pm_active.load()
    await _shoot(ept, mask & ~CPULOCK_EXCL, INVLTLB)


async def _interlock(pmap: Pmap) -> int:
    if pmap.users is not None:
        return 0  # nobody has it in %cr3: a CPU that comes walks by what the PTE is then
    if "inval-without-excl" in pmap.kernel.mutants:
        return int(await pmap.pm_active.load()) & ~CPULOCK_EXCL
    mask: int = await pmap.interlock()
    return mask


async def _deinterlock(pmap: Pmap) -> None:
    if pmap.users is None and "inval-without-excl" not in pmap.kernel.mutants:
        await pmap.deinterlock()


async def _shoot(pmap: Pmap, mask: int, va: int, npgs: int = 1) -> None:
    """Flush on every CPU of `mask`; returns when all have. A thread without a CPU asks them all."""
    if not mask:
        return
    kernel = pmap.kernel
    mine = kernel.mycpu.get(curthread().tid)
    others = [cpu for cpu in kernel.cpus_of(mask) if cpu is not mine]
    if mine is not None and mask & mine.mask:
        await mine.tlb.flush(pmap, va, npgs)
    if "inval-local-only" in kernel.mutants:
        return
    if not kernel.config.ipi_threads:
        for cpu in others:
            kernel.emit("ipi.send", cpu.id, pmap.id, va)
            await cpu.tlb.flush(pmap, va, npgs)
            kernel.emit("ipi.ack", cpu.id)
        return
    if others:
        request = InvalRequest(pmap, va, npgs, sum(cpu.mask for cpu in others))
        for cpu in others:
            await cpu.ipi.send(request)
            kernel.emit("ipi.send", cpu.id, pmap.id, va)
        if "inval-no-wait" not in kernel.mutants:
            await request.pending.wait(_is_zero)


async def inval_intr(cpu: Cpu) -> None:
    """The CPU's IPI handler: flush what is asked, and say so."""
    while True:
        request: InvalRequest = await cpu.ipi.recv()
        if cpu.kernel.injection is not None:
            await cpu.kernel.injection.interrupt(cpu)
        await _flush_and_acknowledge(cpu, request)


@coroutine
def _flush_and_acknowledge(cpu: Cpu, request: InvalRequest) -> Step:
    pmap, va, npgs = request.pmap, request.va, request.npgs
    flushed = cpu.tlb.flushed(pmap, va, npgs)
    yield Effect(request.pending, "flush", write=True, also=flushed)
    cpu.tlb.drop(pmap, va, npgs)
    request.pending.state &= ~cpu.mask
    cpu.kernel.emit("ipi.ack", cpu.id)


@coroutine
def _rendezvous(pmap: Pmap, pte: Pte) -> Step:
    """All CPUs on the pmap flush the PTE's address; the caller changes it in this same step."""
    yield _Rendezvous(pmap, pte)
    va = pte.va if pmap.users is None else INVLTLB
    kernel = pmap.kernel
    mine = kernel.mycpu.get(curthread().tid)
    for cpu in _running_on(pmap):
        if cpu is not mine:
            kernel.emit("ipi.send", cpu.id, pmap.id, va)
        cpu.tlb.drop(pmap, va)
        if cpu is not mine:
            kernel.emit("ipi.ack", cpu.id)
    return pte.state


def _spaces(pmap: Pmap) -> tuple[Pmap, ...]:
    """The pmaps that CPUs run on which use this one's PTEs."""
    return (pmap,) if pmap.users is None else tuple(pmap.users.state)


def _running_on(pmap: Pmap) -> list[Cpu]:
    if pmap.users is not None and "nested-reclaim-without-flush" in pmap.kernel.mutants:
        return []
    mask = 0
    for space in _spaces(pmap):
        mask |= space.pm_active.state
    return pmap.kernel.cpus_of(mask)


class _Rendezvous(Effect):
    """Writes the PTE and the TLBs of the CPUs in pm_active, which it reads."""

    __slots__ = ("pmap", "pte")

    def __init__(self, pmap: Pmap, pte: Pte) -> None:
        self.obj = pmap.pm_active
        self.op = "rendezvous"
        self.write = False
        self.guard = not_excl
        self.deadline = None
        self.pmap = pmap
        self.pte = pte

    @property
    def also(self) -> Also:  # type: ignore[override]
        pmap = self.pmap
        va = self.pte.va if pmap.users is None else INVLTLB
        also: Also = ((self.pte, True), *self.pte.install.also)
        for cpu in _running_on(pmap):
            also = (*also, *cpu.tlb.flushed(pmap, va))
        if pmap.users is None:
            return also
        active = ((space.pm_active, False) for space in _spaces(pmap))
        return (*also, (pmap.users, False), *active)
