"""Every program ends well on a host without races, and gives everything back."""

from __future__ import annotations

import pytest
from vkprotocol.param import PAGE_SHIFT
from vkprotocol.vkernel import SIGSEGV

from tests.vkguest.fake_host import WORDS
from tests.vkguest.rig import Run, assert_all_returned, check_pmaps_every, on_fake
from vkguest.kern.kern_sig import STATUS_KILLED, STATUS_SIGNAL
from vkguest.kern.param import DATA_ADDRESS
from vkguest.kern.proc import Wrong
from vkguest.kern.syscall import STATUS_FAIL
from vkguest.workloads import WORKLOADS, workload
from vkguest.workloads.words import STATUS_CHILD

STATUS_FAULTED = STATUS_SIGNAL + SIGSEGV

# Their registers at the end depend on who was faster.
RACY = {"threads", "snapshot", "random", "wild"}
SMALL = [name if name != "hog" else "hog:pages=16" for name in WORKLOADS]


def assert_went_well(run: Run) -> None:
    assert run.vkernel.failed == []
    assert run.vkernel.boot_error is None
    for pid, result in run.vkernel.results.items():
        expected = {0} if pid < 100 else {STATUS_CHILD, STATUS_KILLED}
        if result.comm.startswith("wild"):  # it unmaps what another of its lwps looks at
            expected.add(STATUS_FAULTED)
        assert result.status in expected, (pid, result)


@pytest.mark.parametrize("vcpus", [1, 2, 3])
@pytest.mark.parametrize("spec", SMALL)
def test_a_workload_ends_well_and_returns_all_it_had(spec: str, vcpus: int) -> None:
    run = on_fake([spec], vcpus=vcpus, seed=vcpus, after_step=check_pmaps_every(53))

    assert_went_well(run)
    assert_all_returned(run)
    assert run.host.counts["inval"] > 0


@pytest.mark.parametrize("spec", [spec for spec in SMALL if spec not in RACY])
def test_results_do_not_depend_on_the_schedule(spec: str) -> None:
    first = on_fake([spec])
    other = on_fake([spec], vcpus=2, seed=7, quantum=9)

    assert first.vkernel.results == other.vkernel.results


def test_several_programs_share_a_guest() -> None:
    run = on_fake(["touch", "forkcow", "pipe", "mmapper"], vcpus=2, pages=96)

    assert_went_well(run)
    assert {pid for pid in run.vkernel.results if pid < 100} == {1, 2, 3, 4}
    assert_all_returned(run)


def test_programs_of_two_processes_never_agree_on_a_value() -> None:
    one, two = (on_fake([spec]).vkernel.results[1] for spec in ("touch", "touch:rounds=3"))

    assert one.checksum != two.checksum


def flip_one_bit(run: Run) -> None:
    """In the first word of the data of process 1, the first time it has yielded."""
    for m in run.vkernel.vm_page_queues.pages.values():
        at = m.frame * WORDS
        mapped = any(pv.va == DATA_ADDRESS for pv in m.pv_list)
        if mapped and run.host.ram[at] == 1 and run.vkernel.sched.runq.state:
            run.host.ram[at] ^= 4


def test_a_wrong_word_is_reported_by_the_program_itself() -> None:
    run = on_fake(["touch"], after_step=flip_one_bit)

    assert run.vkernel.failed == [(1, DATA_ADDRESS, 1, 5)]
    assert run.outcomes == {1: ("touch", STATUS_FAIL)}
    assert ("guest.fail", (0, 1, DATA_ADDRESS, 1, 5)) in run.events
    assert_all_returned(run)


def test_an_access_outside_of_any_mapping_kills() -> None:
    run = on_fake(["mmapper:rounds=1"], after_step=drop_the_mapping)

    assert run.vkernel.results[1].status == 128 + 11
    assert any("seg-fault accessing address 0x50" in line for line in run.console)
    assert_all_returned(run)


def drop_the_mapping(run: Run) -> None:
    """The map entry of the anonymous memory is lost, its pages are not mapped yet."""
    for proc in run.vkernel.allproc:
        vm_map = proc.vmspace.vm_map
        for entry in vm_map.entries:
            pages = (entry.end - entry.start) >> PAGE_SHIFT
            if entry.start == 0x500000 and not entry.object.pages and pages > 1:
                entry.start = entry.end - (1 << PAGE_SHIFT)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("tuch", "no workload 'tuch', expected one of touch, hog"),
        ("touch:page=3", "no parameter 'page', expected pages, rounds"),
        ("touch:pages=x", "pages is 'x', expected a number"),
        ("touch:pages=4000", "data pages, 0 to"),
    ],
)
def test_a_wrong_spec_is_one_line(spec: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        workload(spec)


def test_parameters_count() -> None:
    assert len(workload("touch:rounds=5").text) > len(workload("touch:rounds=1").text)
    assert workload("hog:pages=7").data_pages == 8


def test_a_wrong_answer_of_a_system_call_is_not_called_a_read() -> None:
    assert str(Wrong(2, 0, 7, 137)) == "process 2 gets 0x89 from a system call, expected 0x7"
    assert str(Wrong(2, 0x1000, 1, 0)) == "process 2 reads 0x0 at 0x1000, wrote 0x1"
