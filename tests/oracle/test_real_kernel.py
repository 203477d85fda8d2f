"""Windows of the real kernel that have nothing to do with VPAGETABLE, as its source has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vkemu.executors.deadlock import Deadlock
from vkemu.litmus.decide import decide
from vkemu.litmus.file import load_litmus
from vkemu.oracle import Violation
from vkprotocol.mman import MADV_FREE, MAP_ANON, MAP_PRIVATE, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE

from tests.oracle.host import Host, drive
from tests.oracle.hunt import OneSwitch
from tests.oracle.scenarios import QUIET, evict
from vkhost.kern.panic import Panic
from vkhost.kern.proc import proc_create
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.quirks import Quirks
from vkhost.vm.vm import VM_PROT_NONE
from vkhost.vm.vm_mmap import sys_madvise, sys_mmap
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_protect
from vkhost.vm.vmspace import vmspace_fork

STEPS_MAX = 120


def failures(build: Callable[[], Host], first: int) -> list[str]:
    """What happens when thread `first` is held after so many steps, for all numbers of them."""
    found = []
    for steps in range(STEPS_MAX):
        host = build()
        schedule = OneSwitch(sorted(host.execution.threads)[first], steps)
        try:
            host.execution.run(schedule, 10_000)
            host.oracle.finish()
        except (Violation, Panic, Deadlock) as failure:
            found.append(str(failure))
        finally:
            host.execution.close()
        if schedule.left:
            break
    return found


def test_a_page_dirtied_between_test_and_cache_is_a_panic() -> None:
    """vm_pageout_page finds the page clean, a process stores to it and unmaps it, vm_page_cache
    looks again and panics: also with an exact reverse map, since nobody waits for the busy bit."""
    found = failures(lambda: evict("pv_entry"), first=1)

    assert found
    assert all("caching a dirty page" in text for text in found)


def test_a_kernel_as_it_should_be_deactivates_it() -> None:
    quirks = Quirks(cache_dirty_panic=False)

    assert failures(lambda: evict("pv_entry", quirks=quirks), first=1) == []


def freed(policy: str, quirks: Quirks) -> Host:
    """A process that has stored to a page gives it up (MADV_FREE), and stores again."""
    host = Host(policy, cpus=1, quirks=quirks, **QUIET)
    proc = proc_create(host.kernel, "native", None, 1)
    assert proc is not None
    (lwp,) = proc.lwps
    drive(swtch_in(lwp))
    flags = MAP_ANON | MAP_PRIVATE
    error, va = drive(sys_mmap(proc, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0))
    assert not error

    async def free() -> None:
        await lwp.cpu.store(va, 1)
        assert not await sys_madvise(proc, va, PAGE_SIZE, MADV_FREE)
        await lwp.cpu.store(va, 2)

    host.on("native", lwp.cpu, free())
    return host


@pytest.mark.parametrize("policy", ["extent_scan", "pv_entry"])
def test_a_store_after_madv_free_is_lost_with_the_page(policy: str) -> None:
    """pmap_clearbit clears M in the PTE and tells no CPU (pmap.c, "PG_M or PG_A case"): the store
    goes through a TLB entry that has M, and sets none."""
    found = failures(lambda: freed(policy, Quirks()), first=0)

    assert found
    assert all("a store to clean frame" in text for text in found)
    assert failures(lambda: freed(policy, Quirks(free_without_flush=False)), first=0) == []


def test_memory_waits_for_a_guest_that_waits_for_memory() -> None:
    """vm_fault.c:vm_fault has the vnode while it waits for an interlock whose holder waits for
    memory (W50). With the interlock first every schedule ends; the matrix takes them all."""
    stuck = decide(load_litmus("W50-vnode-and-ilock"), "pv_entry")
    first = decide(
        load_litmus("W50-vnode-and-ilock", "interlock-first"), "pv_entry", max_executions=30
    )

    assert "no end within" in str(stuck.failure)
    assert (first.failure, first.result.executions) == (None, 30)


def shadowed(policy: str) -> Host:
    """A process has forked, and stores to a page that both sides show. The pageout daemon comes
    for that very page."""
    host = Host(policy, cpus=2, **QUIET)
    proc = proc_create(host.kernel, "native", None, 1)
    assert proc is not None
    (lwp,) = proc.lwps
    drive(swtch_in(lwp))
    flags = MAP_ANON | MAP_PRIVATE
    error, va = drive(sys_mmap(proc, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0))
    assert not error
    drive(lwp.cpu.store(va, 1))
    drive(vmspace_fork(proc.p_vmspace, "child"))
    entry = proc.p_vmspace.vm_map.entries[0]
    obj = entry.ba.object
    assert obj is not None

    async def page_out(source: VmObject) -> None:
        async with source.token:
            m = await vm_page_lookup_busy_wait(source, 0, "test")
        assert m is not None
        await vm_page_protect(m, VM_PROT_NONE)
        await vm_page_wakeup(m)

    async def store() -> None:
        await lwp.cpu.store(va, 2)

    host.on("parent", lwp.cpu, store())
    host.execution.spawn("pagedaemon", page_out(obj))
    return host


@pytest.mark.parametrize(("policy", "finds"), [("extent_scan", True), ("pv_entry", False)])
def test_between_detach_and_attach_a_scan_misses_the_mapping(policy: str, finds: bool) -> None:
    """vm_map_entry_shadow takes the vm_map_backing off the object's list before it puts the copy
    on it: the page is said to be unmapped, and a read-only PTE of it stays. A list of PTEs does
    not depend on where the backing is."""
    found = failures(lambda: shadowed(policy), first=0)

    assert bool(found) == finds, found
    assert all("invariant 3" in text for text in found)
