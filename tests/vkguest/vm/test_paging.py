"""The guest's page daemon: programs larger than memory keep their words."""

from __future__ import annotations

import pytest

from tests.vkguest.bench import Bench
from tests.vkguest.rig import (
    Run,
    assert_all_returned,
    assert_daemon_finds,
    check_pmaps_every,
    on_fake,
)
from tests.vkguest.workloads.test_workloads import assert_went_well
from vkguest.kern.kern_sig import STATUS_KILLED
from vkguest.vm.vm_page import (
    VM_ALLOC_NORMAL,
    vm_page_alloc,
    vm_page_free,
    vm_page_hold,
    vm_page_unhold,
)
from vkguest.workloads.words import STATUS_CHILD


@pytest.mark.slow
@pytest.mark.parametrize("vcpus", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_more_memory_than_there_is_goes_through_swap(vcpus: int, seed: int) -> None:
    run = on_fake(
        ["hog:pages=30,rounds=2", "hog:pages=22,rounds=2"],
        vcpus=vcpus, seed=seed, pages=90, swap_pages=48, after_step=check_pmaps_every(499),
    )  # fmt: skip

    assert_went_well(run)
    assert_all_returned(run)
    frames = 90 - 48 - 4
    allocated = sum(name == "guest.alloc" for name, _ in run.events)
    assert allocated > 3 * frames


@pytest.mark.parametrize("vcpus", [1, 2, 3])
def test_a_daemon_that_never_rests_takes_nothing_that_is_needed(vcpus: int) -> None:
    run = on_fake(
        ["forkcow", "snapshot", "poke"],
        vcpus=vcpus, pages=90, swap_pages=24, free_target=180, after_step=check_pmaps_every(97),
    )  # fmt: skip

    assert_went_well(run)
    assert_all_returned(run)


def test_a_page_that_came_from_swap_to_be_copied_can_go_again() -> None:
    def after_step(run: Run) -> None:
        if not run.steps % 29:
            assert_daemon_finds(run)

    run = on_fake(
        ["poke:rounds=6", "hog:pages=12,rounds=2"],
        vcpus=2, pages=90, swap_pages=40, free_target=180, after_step=after_step,
    )  # fmt: skip

    assert_went_well(run)


@pytest.mark.parametrize("frames", range(22, 28))
def test_a_copy_that_never_fits_does_not_try_for_ever(frames: int) -> None:
    # Its source comes from swap into the last frame, and goes again as there is none for the copy.
    run = on_fake(["poke:rounds=3"] * 2, pages=frames + 12, swap_pages=12)

    assert run.steps < 150_000
    assert_all_returned(run)


def test_without_swap_the_largest_process_is_killed_and_the_others_go_on() -> None:
    run = on_fake(["touch:pages=6,rounds=3", "hog:pages=48"], vcpus=2, pages=48)

    assert run.outcomes == {1: ("touch", 0), 2: ("hog", STATUS_KILLED)}
    assert any("Try to kill process hog 2" in line for line in run.console)
    assert_all_returned(run)


@pytest.mark.parametrize("seed", [0, 5, 8])
def test_nobody_is_killed_while_there_is_swap(seed: int) -> None:
    # Frames that others take during the last pass look like a shortage that no pass relieved.
    run = on_fake(
        ["hog:pages=8,rounds=2"] * 4, vcpus=4, seed=seed, pages=77, swap_pages=40
    )  # fmt: skip

    assert_went_well(run)
    assert_all_returned(run)


def test_frames_of_a_dead_process_are_used_again() -> None:
    run = on_fake(["hog:pages=20,rounds=1", "exec:rounds=4,pages=8"], pages=56)

    frames = [fields[1] for name, fields in run.events if name == "guest.alloc"]
    assert len(frames) > len(set(frames))
    assert_went_well(run)


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_shadow_over_a_shared_one_does_not_keep_what_is_below(vcpus: int) -> None:
    # Each round forks while the child of the round before may still live.
    run = on_fake(["poke:rounds=12"], vcpus=vcpus, pages=44, swap_pages=4)

    statuses = {pid: result.status for pid, result in run.vkernel.results.items()}
    assert statuses == {pid: 0 if pid == 1 else STATUS_CHILD for pid in statuses}
    assert len(statuses) == 13
    assert_all_returned(run)


def test_a_held_frame_is_not_free_before_it_is_let_go() -> None:
    bench = Bench()
    gd, free = bench.gd, bench.vkernel.vm_page_queues.free

    async def main() -> list[bool]:
        m = await vm_page_alloc(gd, None, 0, VM_ALLOC_NORMAL, "test")
        assert m is not None
        await vm_page_hold(gd, m)
        await vm_page_free(gd, m)
        held = m.frame in free
        await vm_page_unhold(gd, m)
        return [held, m.frame in free]

    bench.run(main())

    assert bench.result == [False, True]
