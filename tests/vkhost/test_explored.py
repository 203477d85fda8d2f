"""Small kernel programs, all their interleavings: what the reduction reaches is what there is, and
the claims of pmap and the reverse maps hold in every one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vkemu.exploration import explore
from vkprotocol.effects import CURTHREAD

from tests.vkhost.machine import ENTRY, SMALL
from vkhost.config import HostConfig
from vkhost.kernel import Kernel
from vkhost.pc64.cpu import Fault
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_MANAGED, pte_make
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import KERN_FAILURE, VM_MAPTYPE_NORMAL, VM_PROT_ALL, VM_PROT_NONE
from vkhost.vm.vm_map import VmMapBacking
from vkhost.vm.vm_object import OBJT_DEFAULT, VmObject, vm_object_allocate
from vkhost.vm.vm_page import PBUSY_LOCKED, PG_MAPPED, PG_WRITEABLE, VmPage
from vkhost.vm.vm_page_dirty import vm_page_protect
from vkhost.vm.vm_page_queue import PQ_FREE, PQ_NONE

VA = 0x5000


class Setting:
    """A kernel with pages that are in use and PTEs that are there, made without running anything:
    an exploration builds this anew for each execution."""

    def __init__(self, k: Any, policy: str, mutants: tuple[str, ...] = (), **config: Any) -> None:
        self.kernel = Kernel(
            HostConfig(**{**SMALL, "pages": 3, **config}), policy, k.spawn,
            mutants=frozenset(mutants),
        )  # fmt: skip
        vars(self.kernel)["vm_fault"] = self.vm_fault
        self.pmap = Pmap(self.kernel, "p", "p")
        self.obj = vm_object_allocate(self.kernel, OBJT_DEFAULT, 4, None, "object")
        self.obj.backing_list.append(
            VmMapBacking(self.pmap, VM_MAPTYPE_NORMAL, VA, VA + 4 * 4096, self.obj, 0)
        )

    async def vm_fault(
        self, vm_map: Any, va: int, fault_type: int, flags: int, write: Any = None
    ) -> int:
        return KERN_FAILURE

    def page(self, pindex: int, obj: VmObject | None = None) -> VmPage:
        """A page of the object, hard-busied."""
        obj = obj or self.obj
        m = self.kernel.pages[pindex]
        self.kernel.queues.of(PQ_FREE, 0).remove(m)
        m.queue = PQ_NONE
        m.object, m.pindex, m.valid, m.reusable = obj, pindex, 0xFF, False
        m.busy_count.state = PBUSY_LOCKED
        obj.memq[pindex] = m
        return m

    def enter(self, m: VmPage, bits: int = 0) -> None:
        pte = self.pmap.pte(VA)
        pte.put(pte_make(m.pfn, VM_PROT_ALL, PTE_MANAGED | bits), m.frame.generation)
        m.flags.state = PG_MAPPED | PG_WRITEABLE
        # An async function that awaits nothing another thread could have: run it here.
        drive(self.kernel.rmap.enter(self.pmap, m, pte, None))

    def run_on(self, *cpus: int) -> None:
        from types import SimpleNamespace

        for i in cpus:
            cpu = self.kernel.cpus[i]
            vmspace = SimpleNamespace(pmap=self.pmap, vm_map=SimpleNamespace(pmap=self.pmap))
            lwp: Any = SimpleNamespace(cpu=cpu, vmspace=vmspace)
            cpu.lwp = lwp
            cpu.tlb.root.state = self.pmap
            cpu.tlb.slots = cpu.tlb.spaces.setdefault(self.pmap.asid, {})
            self.pmap.pm_active.state |= cpu.mask

    def outcome(self) -> tuple[Any, ...]:
        """Everything a step could have left different."""
        kernel = self.kernel
        return (
            self.pmap.pte(VA).state,
            self.pmap.pm_active.state,
            tuple((m.flags.state, m.dirty.state, m.interlock_count.state, m.frame.words[0])
                  for _, m in sorted(kernel.pages.items())),
            tuple(tuple((key, entry.pfn, entry.bits) for key, entry in cpu.tlb.entries())
                  for cpu in kernel.cpus),
        )  # fmt: skip


def drive(body: Any) -> None:
    """Run a coroutine outside any execution, granting it everything."""
    from vkprotocol.effects import Thread

    thread = Thread(0, "set-up", body)
    CURTHREAD[0] = thread
    try:
        body.send(None)
        while True:
            body.send(thread)
    except StopIteration:
        pass
    finally:
        CURTHREAD[0] = None


async def user(setting: Setting, cpu: int, value: int) -> None:
    try:
        await setting.kernel.cpus[cpu].store(VA, value)
    except Fault:
        pass


def removal_and_one_user(setting: Setting, k: Any) -> None:
    setting.enter(setting.page(0))
    setting.run_on(0)
    k.spawn("user", user, setting, 0, 1)
    k.spawn("remove", pmap_remove, setting.pmap, VA, VA + 4096)


def two_users(setting: Setting, k: Any) -> None:
    setting.enter(setting.page(0))
    setting.run_on(0, 1)
    for cpu in (0, 1):
        k.spawn(f"user{cpu}", user, setting, cpu, cpu + 1)


def reading_and_remove_all(setting: Setting, k: Any) -> None:
    m = setting.page(0)
    setting.enter(m)
    setting.run_on(0)

    async def read() -> None:
        try:
            await setting.kernel.cpus[0].load(VA)
            await setting.kernel.cpus[0].store(VA, 1)
        except Fault:
            pass

    k.spawn("read", read)
    k.spawn("reclaim", vm_page_protect, m, VM_PROT_NONE)


def outcomes(program: Callable[[Setting, Any], None], strategy: str, **config: Any) -> Any:
    """(set of outcomes, executions) of a program, searched to the end."""
    found: set[Any] = set()
    settings: list[Setting] = []

    def build(k: Any) -> None:
        settings[:] = [Setting(k, **config)]
        program(settings[0], k)

    result = explore(build, strategy=strategy, each=lambda run: found.add(settings[0].outcome()))
    assert result.verdict == "pass", result.failure
    assert result.exhausted
    return found, result.executions


@pytest.mark.slow
@pytest.mark.parametrize("shootdown", ["stream", "rendezvous"])
@pytest.mark.parametrize("policy", ["pv_entry", "extent_scan"])
@pytest.mark.parametrize("program", [removal_and_one_user, two_users, reading_and_remove_all])
def test_the_reduction_reaches_every_outcome(program: Any, policy: str, shootdown: str) -> None:
    every, all_executions = outcomes(program, "dfs", policy=policy, shootdown=shootdown)
    reduced, executions = outcomes(program, "dpor", policy=policy, shootdown=shootdown)

    assert reduced == every
    assert len(every) > 1
    assert executions < all_executions


def w33(k: Any, policy: str, mutants: tuple[str, ...], **config: Any) -> None:
    """A fault replaces the PTE of `old`, dirty, while the pagedaemon takes `old`'s PTEs away."""
    setting = Setting(k, policy, mutants, **config)
    old = setting.page(0)
    other = vm_object_allocate(setting.kernel, OBJT_DEFAULT, 4, None, "other")
    new = setting.page(1, other)
    setting.enter(old, PTE_A | PTE_M)
    k.spawn("fault", pmap_enter, setting.pmap, VA, new, VM_PROT_ALL, False, ENTRY)

    async def reclaim() -> None:
        await vm_page_protect(old, VM_PROT_NONE)
        # The busy page is believed to have no PTE and to have told all its dirt.
        assert not await old.flags.load() & PG_MAPPED
        assert await old.dirty.load()
        pte = await setting.pmap.pte(VA).load()
        assert not pte or pte >> 12 & 1

    k.spawn("reclaim", reclaim)


@pytest.mark.slow
@pytest.mark.parametrize("shootdown", ["stream", "rendezvous"])
@pytest.mark.parametrize(
    ("policy", "mutants", "verdict"),
    [
        ("pv_entry", (), "pass"),
        ("extent_scan", (), "pass"),
        ("vptmapped", (), "pass"),
        ("extent_scan", ("no-interlock-count",), "fail"),
    ],
)
def test_w33_in_every_interleaving(
    policy: str, mutants: tuple[str, ...], verdict: str, shootdown: str
) -> None:
    result = explore(lambda k: w33(k, policy, mutants, shootdown=shootdown), max_executions=20_000)

    assert result.verdict == verdict, result.failure
    assert verdict == "fail" or result.exhausted
