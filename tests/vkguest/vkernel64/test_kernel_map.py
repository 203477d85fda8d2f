"""A guest kernel's own memory in KVA, which it faults on (trap.c:kern_trap); trap frames there."""

from __future__ import annotations

import pytest
from vkprotocol import messages as msg
from vkprotocol.insn import store
from vkprotocol.mman import MADV_INVAL, PROT_NONE
from vkprotocol.param import KERNEL_KVA_START, PAGE_SHIFT, PAGE_SIZE

from tests.vkguest.bench import RW, Bench
from tests.vkguest.host_rig import HostRun, at_random, on_host
from tests.vkguest.rig import assert_all_returned, on_fake
from vkguest.kern.errors import GuestPanic
from vkguest.kern.param import phys_to_dmap
from vkguest.vkernel64.dmap import load as kernel_load
from vkguest.vkernel64.dmap import store as kernel_store
from vkguest.vkernel64.globaldata import GlobalData
from vkguest.vkernel64.pmap import pmap_enter
from vkguest.vkernel64.pmap_page import pmap_page_protect
from vkguest.vkernel64.port import Port
from vkguest.vm import vm_fault
from vkguest.vm.swap_pager import swap_pager_getpage
from vkguest.vm.vm_kern import kmem_alloc_stack, vm_map_find, vtopte
from vkguest.vm.vm_object import VmObject
from vkguest.vm.vm_page import VmPage

SPECS = ["pipe:words=3,rounds=2", "touch"]


@pytest.mark.parametrize("policy", ["pv_entry", "nested"])
def test_programs_run_the_same_with_frames_and_buffers_in_kva(policy: str) -> None:
    plain = on_host(SPECS, policy=policy, vcpus=2, pages=96)
    mapped = on_host(SPECS, policy=policy, vcpus=2, pages=96, kernel_map=True)

    assert (plain.error, mapped.error, mapped.failed) == (None, None, [])
    assert plain.guests[0].results == mapped.guests[0].results


def test_its_memory_comes_back() -> None:
    assert_all_returned(on_fake(SPECS, vcpus=2, pages=96, kernel_map=True))
    run = on_host(SPECS, vcpus=2, pages=96, kernel_map=True)

    assert not run.guests[0].kernel_map.entries
    assert run.guests[0].kernel_pmap.resident_count == run.guests[0].kernel_pmap.wired_count == 0


def test_a_buffer_may_go_to_swap_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """sys_pipe.c:pipespace: what is in a pipe is pageable."""
    brought_back = []

    async def getpage(gd: GlobalData, obj: VmObject, m: VmPage) -> None:
        brought_back.append(any(e.object is obj for e in gd.kernel.kernel_map.entries))
        await swap_pager_getpage(gd, obj, m)

    monkeypatch.setattr(vm_fault, "swap_pager_getpage", getpage)
    specs = ["pipe:words=12,rounds=1", "hog:pages=18,rounds=1"]
    run = on_host(specs, vcpus=2, pages=50, swap_pages=24, sticky=0.8, kernel_map=True)

    assert (run.error, run.failed) == (None, [])
    assert any(brought_back)


def test_a_kernel_fault_on_a_page_that_is_there_is_resolved_by_the_guest() -> None:
    """trap.c:kern_trap, trap_pfault: vm_fault of kernel_map; and the access is made again."""
    bench = Bench()
    obj = VmObject()
    bench.run(vm_map_find(bench.gd, 2, obj))
    va = bench.result
    assert isinstance(va, int)
    bench.run(kernel_store(bench.gd, va + 8, 77))  # demand zero
    bench.run(pmap_page_protect(bench.gd, obj.pages[0], PROT_NONE))

    trace = bench.run(kernel_load(bench.gd, va + 8))

    assert bench.result == 77
    assert trace == ["?", "0", f"INVAL {va - KERNEL_KVA_START}+4096", "RW|U|A|MANAGED", "?"]


def test_a_fault_between_clearing_and_installing_is_resolved_too() -> None:
    """W31, of a stack that another vCPU enters anew (pmap.c:pmap_enter): the fault waits for it."""
    bench = Bench(vcpus=2)
    kernel = bench.vkernel
    bench.run(kmem_alloc_stack(bench.gd))
    stack = bench.result
    assert isinstance(stack, int)
    bench.run(kernel_store(bench.gd, stack, 5))
    slot = (vtopte(stack) - phys_to_dmap(0)) // 8
    m = kernel.vm_page_queues.pages[bench.host.ram[slot] >> PAGE_SHIFT]
    other, loaded = kernel.cpus[1], []

    async def enter() -> None:
        await pmap_enter(other, kernel.kernel_pmap, stack, m, RW, wired=True)

    async def load() -> None:
        loaded.append(await kernel_load(bench.gd, stack))

    entering = bench.execution.spawn("enter", enter()).tid
    loading = bench.execution.spawn("load", load()).tid
    cleared: list[str] = []

    def in_the_window(runnable: list[int]) -> int:
        cleared.extend(["cleared"] * (not cleared and not bench.host.ram[slot]))
        first, second = (loading, entering) if cleared else (entering, loading)
        others = [tid for tid in runnable if tid not in (first, second)]
        return first if first in runnable else (others or [second])[0]

    bench.execution.run(in_the_window, 10_000)

    assert (loaded, cleared) == ([5], ["cleared"])
    assert sum(isinstance(request, msg.Madvise) for request in bench.requests) == 2, "both entered"


@pytest.mark.parametrize("mutants", [frozenset(), frozenset({"kernel-fault-fatal"})])
def test_what_kernel_map_does_not_have_is_fatal(mutants: frozenset[str]) -> None:
    """trap.c:trap_fatal. The mutant is the kernel that takes every fault for one of these."""
    bench = Bench(mutants)
    bench.run(vm_map_find(bench.gd, 1, VmObject()))
    va = bench.result
    assert isinstance(va, int)

    if mutants:
        with pytest.raises(GuestPanic, match="page fault: fault in kernel mode: store"):
            bench.run(kernel_store(bench.gd, va, 1))
    else:
        bench.run(kernel_store(bench.gd, va, 1))
        with pytest.raises(GuestPanic, match="page fault: fault in kernel mode: load"):
            bench.run(kernel_load(bench.gd, va + PAGE_SIZE))


class TakesTheStack:
    """Before the third RUN of its vCPU the VPTE of the stack that its frame is on is gone."""

    def __init__(self, inner: Port) -> None:
        self.inner = inner
        self.runs = 0

    async def call(self, request: msg.AnyRequest) -> msg.Reply:
        if isinstance(request, msg.VmspaceCtl):
            self.runs += 1
            if self.runs == 3 and request.tframe is not None:
                page = request.tframe & -PAGE_SIZE
                edit = msg.CpuOps(lwp=request.lwp, seq=0, ops=(store(vtopte(page), 0),))
                inval = msg.Madvise(page, PAGE_SIZE, MADV_INVAL, lwp=request.lwp, seq=0)
                for extra in (edit, inval):
                    assert (await self.inner.call(extra)).errno == 0
        return await self.inner.call(request)


@pytest.mark.parametrize("kernel_map", [True, False])
def test_a_frame_the_host_cannot_get_at_is_a_panic_of_its_own(kernel_map: bool) -> None:
    """trap.c:go_user as patched: vmspace_ctl answers EFAULT. Nobody tries again, as the kernel
    itself would; without a kernel_map the frame is in the message, and cannot be missing."""
    run = HostRun(
        ["touch"], port=lambda run, inner: TakesTheStack(inner), kernel_map=kernel_map, checks=[]
    ).run(at_random(1))

    if kernel_map:
        assert isinstance(run.error, GuestPanic)
        assert str(run.error) == "vk0: vmspace_ctl failed with EFAULT"
    else:
        assert (run.error, run.failed) == (None, [])
