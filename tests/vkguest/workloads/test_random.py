"""Random programs, and the two calls that only they make: madvise and msync."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from vkprotocol.insn import Op
from vkprotocol.mman import MADV_DONTNEED, MADV_FREE
from vkprotocol.vpte import VPTE_M

from tests.vkguest.bench import INVAL, RW, Bench
from tests.vkguest.rig import Run, assert_all_returned, on_fake
from tests.vkguest.workloads.test_workloads import assert_went_well
from vkguest.kern.kern_exec import Program
from vkguest.kern.param import DATA_ADDRESS
from vkguest.kern.syscall import Sys
from vkguest.vm.vm_object import VmObject, vm_object_madvise
from vkguest.vm.vm_page import PQ_INACTIVE, PQ_NONE
from vkguest.workloads import workload
from vkguest.workloads.drawn import Drawn

SWAP = 12
TIGHT = 42  # pages, swap included: two processes hardly fit


def calls(program: Program) -> Counter[int]:
    """The system calls in its text, and in those of the programs it may become."""
    text = program.text
    found = Counter(
        before.imm
        for before, insn in pairwise(text)
        if insn.op is Op.SYSCALL and before.op is Op.LI
    )
    return sum(map(calls, program.images), found)


def test_a_seed_is_a_program() -> None:
    assert workload("random:seed=3") == workload("random:seed=3")
    assert workload("random:seed=3") != workload("random:seed=4")


def test_nothing_a_process_can_do_is_left_out() -> None:
    drawn = sum((calls(workload(f"random:seed={seed}")) for seed in range(30)), Counter[int]())

    assert {call for call in Sys if not drawn[call]} == set()


def test_no_two_processes_of_a_program_store_the_same_word() -> None:
    drawn = Drawn(Random(1), 4)
    stored: list[int] = []
    for _ in range(3):
        drawn._fork(lambda child: stored.append(child._next()))
        stored.append(drawn._next())

    assert len(set(stored)) == len(stored)


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_end_well_and_return_all_they_had(seed: int) -> None:
    run = on_fake(
        [f"random:seed={seed},pages=2", f"random:seed={seed + 100},pages=2"],
        seed=seed, vcpus=1 + seed % 2, pages=64, swap_pages=SWAP,
    )  # fmt: skip

    assert_went_well(run)
    assert_all_returned(run)


def test_when_memory_is_short_table_pages_are_waited_for() -> None:
    """They were taken from a reserve, and the guest panicked when that was empty."""
    for seed in range(6):
        run = on_fake(
            [f"random:seed={seed},pages=2", f"random:seed={seed + 50},pages=2"],
            seed=seed, pages=TIGHT, swap_pages=SWAP,
        )  # fmt: skip

        assert run.vkernel.failed == []
        assert_all_returned(run)


def test_a_pipe_that_never_fits_does_not_try_for_ever() -> None:
    """It got one frame of two and gave it back, which looked like enough to the daemon."""
    run = on_fake(["random:seed=11,pages=2"], pages=30, swap_pages=SWAP)

    assert run.steps < 100_000
    assert_all_returned(run)


def spoil(run: Run) -> None:
    """One bit of the first word of every page mapped at the start of some process's data."""
    if run.steps % 500:
        return
    for m in run.vkernel.vm_page_queues.pages.values():
        if any(pv.va == DATA_ADDRESS for pv in m.pv_list):
            run.host.ram[m.frame * 512] ^= 1 << 40


def test_a_wrong_word_is_noticed() -> None:
    failed = [on_fake([f"random:seed={s}"], after_step=spoil).vkernel.failed for s in range(6)]

    assert any(failed)


def test_msync_asks_the_host() -> None:
    run = on_fake([f"random:seed={seed}" for seed in range(4)], pages=160)

    assert run.host.counts["Msync"] > 0


@pytest.mark.parametrize(
    ("advice", "shared", "trace", "dirty"),
    [
        (MADV_FREE, False, ["?", "?", "-RW|M", INVAL], False),
        (MADV_FREE, True, [], True),  # somebody else's too
        (MADV_DONTNEED, False, [], True),
    ],
)
def test_free_makes_a_page_clean_and_read_only_first(
    advice: int, shared: bool, trace: list[str], dirty: bool
) -> None:
    bench, obj = Bench(), VmObject()
    obj.ref_count += shared
    _, m = bench.mapped(RW, VPTE_M)
    obj.pages[0], m.object, m.dirty = m, obj, True
    m.busy.state = None  # as vm_page_wakeup by the thread that has allocated it

    assert bench.run(vm_object_madvise(bench.gd, obj, 0, 1, advice)) == trace
    assert m.dirty == dirty
    assert m.queue == (PQ_NONE if shared and advice == MADV_FREE else PQ_INACTIVE)
