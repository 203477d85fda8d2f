"""vmspace_* calls: errnos, their order, references, and what exit demands."""

from __future__ import annotations

from typing import Any

import pytest
from vkemu import explore
from vkprotocol.errno import Errno
from vkprotocol.insn import Trapframe, ld, li
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP

from tests.vkhost.vkernel import RW, Vkernel
from vkhost.kern.lwp import Lwp
from vkhost.kern.panic import Panic
from vkhost.kern.proc import lwp_reap
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.pc64.trap import _enter, vmspace_ctl
from vkhost.quirks import Quirks
from vkhost.vm.vm_vmspace import (
    VKE_REF_DELETED,
    VmspaceEntry,
    vkernel_exit,
    vkernel_find_vmspace,
    vkernel_lwp_exit,
    vmspace_create,
    vmspace_destroy,
    vmspace_entry_cache,
    vmspace_entry_drop,
)

pytestmark = pytest.mark.usefixtures("guarded")

RUN = 1
ID = 0xFFFF_8000


def entry(k: Vkernel, id: int = ID) -> VmspaceEntry:  # noqa: A002
    vkp = k.proc.p_vkernel.value
    assert vkp is not None
    found: VmspaceEntry = vkp.root[id]
    return found


def created(**options: Any) -> Vkernel:
    k = Vkernel(**options)
    assert k.do(vmspace_create(k.lwp, ID)) == 0
    return k


def test_create_then_destroy_then_create_again() -> None:
    k = created()
    ve = entry(k)
    assert (ve.refs.value, ve.cache_refs.value) == (0, 1)

    assert k.do(vmspace_destroy(k.lwp, ID)) == 0
    assert k.do(vmspace_destroy(k.lwp, ID)) == Errno.ENOENT
    assert k.do(vmspace_create(k.lwp, ID)) == 0
    assert entry(k) is not ve
    assert [event[3] for event in k.named("vmspace.destroy")] == [0]


def test_create_of_an_id_in_use_fails_and_leaves_nothing() -> None:
    k = created()
    pmaps = list(k.kernel.pmaps)

    assert k.do(vmspace_create(k.lwp, ID)) == Errno.EEXIST
    assert list(k.kernel.pmaps) == pmaps


def test_a_null_id_works_against_what_the_comment_says() -> None:
    k = Vkernel()

    assert k.do(vmspace_create(k.lwp, 0)) == 0
    assert k.do(vmspace_destroy(k.lwp, 0)) == 0


@pytest.mark.parametrize("how", ["config", "sysctl"])
def test_create_with_vkernels_disabled(how: str) -> None:
    k = Vkernel(vkernel_enable=how != "config")
    if how == "sysctl":
        k.kernel.vmmeter.tunables["vkernel_enable"] = 0

    assert k.do(vmspace_create(k.lwp, ID)) == Errno.EOPNOTSUPP
    assert k.proc.p_vkernel.value is None


def test_our_bound_on_their_number() -> None:
    k = created()
    k.proc.max_vmspaces = 2

    assert k.do(vmspace_create(k.lwp, 1)) == 0
    assert k.do(vmspace_create(k.lwp, 2)) == Errno.ENOMEM


def test_racing_first_creators_share_one_vkernel_proc() -> None:
    def program(x: Any) -> None:
        k = Vkernel()
        k.kernel.spawn = x.spawn
        results: list[int] = []

        async def create(lwp: Lwp, vmspace_id: int) -> None:
            results.append(await vmspace_create(lwp, vmspace_id))

        for i, lwp in enumerate(k.proc.lwps):
            x.spawn(f"lwp{i}", create, lwp, i)
        x.at_end(lambda: results == [0, 0] and sorted(k.proc.p_vkernel.value.root) == [0, 1])

    found = explore(program, strategy="random", max_executions=60)

    assert found.failure is None


def frame(*text: Any) -> Trapframe:
    return Trapframe(text=text)


async def ctl(k: Vkernel, vmspace_id: int, cmd: int, tframe: Trapframe | None) -> int:
    error, _ = await vmspace_ctl(k.lwp, vmspace_id, cmd, tframe)
    return error


def test_ctl_checks_in_order() -> None:
    k = Vkernel()
    assert k.do(ctl(k, ID, 99, None)) == Errno.EINVAL  # never called vmspace_create
    k.do(vmspace_create(k.lwp, 1))
    assert k.do(ctl(k, ID, 99, None)) == Errno.ENOENT
    assert k.do(ctl(k, 1, 99, None)) == Errno.EOPNOTSUPP
    assert k.do(ctl(k, 1, RUN, None)) == Errno.EFAULT
    ve = entry(k, 1)

    assert (ve.refs.value, ve.cache_refs.value) == (0, 2)  # RUN cached it before the copyin
    assert k.do(vmspace_destroy(k.lwp, 1)) == 0


def test_run_holds_one_reference_and_gives_it_back() -> None:
    k = created()
    ve = entry(k)
    k.do(swtch_in(k.lwp))
    k.do(ctl(k, ID, RUN, frame(li(1, 0), ld(0, 1))))

    assert [event[3] for event in k.named("vmspace.ref")] == [1, 2, 1, 0]
    assert len(k.named("run.enter", "run.exit")) == 2
    assert (ve.refs.value, ve.cache_refs.value) == (0, 2)
    assert k.lwp.vmspace is k.own
    assert k.lwp.lwp_vkernel is not None
    assert k.lwp.lwp_vkernel.ve is None


def find(k: Vkernel, lwp: Lwp) -> VmspaceEntry | None:
    found: VmspaceEntry | None = k.do(vkernel_find_vmspace(lwp, k.proc.p_vkernel.value, ID))
    return found


def test_destroy_while_somebody_has_a_reference_is_ebusy_and_leaks() -> None:
    """W22."""
    k = created()
    ve = find(k, k.proc.lwps[1])
    assert ve is not None

    assert k.do(vmspace_destroy(k.lwp, ID)) == Errno.EBUSY
    assert ve.refs.value == 2
    k.do(vmspace_entry_drop(ve))
    assert k.do(vmspace_destroy(k.lwp, ID)) == Errno.EBUSY
    assert ve.refs.value == 2
    with pytest.raises(Panic, match="rb_vmspace_delete: invalid refs 2"):
        k.do(vkernel_exit(k.proc))


def test_without_the_quirk_ebusy_is_only_for_as_long_as_it_is_busy() -> None:
    k = created(quirks=Quirks(ebusy_ref_leak=False))
    ve = find(k, k.proc.lwps[1])
    assert ve is not None

    assert k.do(vmspace_destroy(k.lwp, ID)) == Errno.EBUSY
    k.do(vmspace_entry_drop(ve))
    assert k.do(vmspace_destroy(k.lwp, ID)) == 0


def test_mutant_a_reference_run_keeps() -> None:
    k = created(mutants=("run-ref-kept",))
    k.do(ctl(k, ID, RUN, frame()))

    assert k.do(vmspace_destroy(k.lwp, ID)) == Errno.EBUSY


def test_exit_destroys_what_is_left() -> None:
    k = created()
    k.do(vmspace_create(k.lwp, 1))
    k.do(ctl(k, 1, RUN, frame()))
    for lwp in k.proc.lwps:
        k.do(vkernel_lwp_exit(lwp))
    ve = entry(k, 1)
    k.do(vkernel_exit(k.proc))

    assert ve.refs.value & VKE_REF_DELETED
    assert ve.cache_refs.value == 0
    assert [event[2] for event in k.named("vmspace.destroy")] == [1, ID]


def test_an_lwp_killed_while_running_gives_everything_back() -> None:
    k = created()

    async def run() -> None:
        ve = await vkernel_find_vmspace(k.lwp, k.proc.p_vkernel.value, ID)
        assert ve is not None
        await vmspace_entry_cache(k.lwp, ve)
        await _enter(k.lwp, ve)
        await vmspace_entry_drop(ve)
        await vkernel_lwp_exit(k.lwp)

    ve = entry(k)
    k.do(run())

    assert (ve.refs.value, ve.cache_refs.value) == (0, 1)
    assert k.lwp.vmspace is k.own
    assert f"Warning, pid {k.proc.pid} killed with active VC!" in k.named("console")[0][1]


def test_who_reaps_an_lwp_takes_its_cpu_off_its_page_tables_and_the_last_the_process() -> None:
    """kern_exit.c:lwp_exit, of threads that have ended in the midst of something."""
    k = created()
    first, second = k.proc.lwps

    async def run() -> None:
        await swtch_in(first)
        ve = await vkernel_find_vmspace(first, k.proc.p_vkernel.value, ID)
        assert ve is not None
        await vmspace_entry_cache(first, ve)
        await _enter(first, ve)
        await vmspace_entry_drop(ve)

    k.do(run())
    for _ in range(2):  # once is enough
        k.do(lwp_reap(first))
    assert (k.own.pmap.pm_active.value, k.proc.zombie) == (0, False)

    k.do(swtch_in(second))
    k.do(lwp_reap(second))
    assert k.proc.zombie


def recycled(k: Vkernel) -> tuple[VmspaceEntry, VmspaceEntry]:
    """lwp 0 has ID cached; lwp 1 destroys it and makes it anew."""
    k.do(ctl(k, ID, RUN, frame()))
    old = entry(k)
    other = k.proc.lwps[1]
    assert k.do(vmspace_destroy(other, ID)) == 0
    assert k.do(vmspace_create(other, ID)) == 0
    return old, entry(k)


def test_a_deleted_entry_in_the_cache_is_dropped_and_looked_up_again() -> None:
    """W44."""
    k = created()
    old, new = recycled(k)

    assert find(k, k.lwp) is new
    assert old.cache_refs.value == 0
    assert k.lwp.lwp_vkernel is not None
    assert k.lwp.lwp_vkernel.ve_cache is None


def test_mutant_without_the_test_it_is_the_dead_one_that_is_found() -> None:
    k = created(mutants=("ve-cache-without-deleted-test",))
    old, _ = recycled(k)

    assert find(k, k.lwp) is old


def test_destroy_takes_the_pages_without_ipis() -> None:
    k = created()
    ve = entry(k)
    k.tables({1: 10 << 12 | RW})
    k.vpagetable(1 << 12 | RW, vmspace=ve.vmspace)
    k.fault(4096, 1, ve.vmspace)
    assert k.mapped(4096, ve.vmspace)
    k.do(vmspace_destroy(k.lwp, ID))

    assert not k.mapped(4096, ve.vmspace)
    assert k.named("ipi.send") == []
    assert ve.vmspace.pmap.id not in k.kernel.pmaps
    assert k.vnode.object is not None
    assert k.vnode.object.backing_list == []


def test_refs_are_the_runners_and_the_calls_in_flight() -> None:
    """Invariant 10, over random schedules of RUN, INVAL and destroy."""

    def program(x: Any) -> None:
        k = created(vcpus=3, quirks=Quirks.none())
        ve = entry(k)
        done: list[int] = []

        async def run(lwp: Lwp) -> None:
            await vmspace_ctl(lwp, ID, RUN, frame(li(1, 0)))

        async def destroy(lwp: Lwp) -> None:
            done.append(await vmspace_destroy(lwp, ID))

        for lwp in k.proc.lwps[:2]:
            x.spawn(f"run{lwp.tid}", run, lwp)
        x.spawn("destroy", destroy, k.proc.lwps[2])

        def settled() -> bool:
            refs = ve.refs.value
            return refs == (VKE_REF_DELETED if done == [0] else 0) and done[0] in (0, Errno.EBUSY)

        x.at_end(settled)

    found = explore(program, strategy="random", max_executions=60)

    assert found.failure is None


def test_behaviours_reach_the_vmspace_named() -> None:
    from vkhost.vm.vm_mmap import kern_mcontrol

    k = created()
    ve = entry(k)
    k.vpagetable(None, vmspace=ve.vmspace)

    async def both() -> tuple[int, int]:
        return (
            await kern_mcontrol(ve.vmspace, 0, 1 << 40, MADV_SETMAP, 77),
            await kern_mcontrol(ve.vmspace, 0, 1 << 40, MADV_INVAL, 0),
        )

    assert k.do(both()) == (0, 0)
    assert ve.vmspace.vm_map.entries[0].master_pde == 77
