"""Guests on the real host: the same results as on the fake one, and what guest defects do there."""

from __future__ import annotations

import pytest
from vkemu.oracle import DEFAULT_CHECKS, Violation
from vkprotocol.insn import Insn, ld, li

from tests.vkguest import host_rig
from tests.vkguest.host_rig import HostRun, at_random, on_host
from tests.vkguest.rig import on_fake
from tests.vkguest.workloads.test_workloads import RACY
from vkguest.kern.errors import GuestPanic
from vkguest.kern.kern_exec import Program
from vkguest.kern.param import DATA_ADDRESS
from vkguest.workloads import WORKLOADS, workload
from vkhost.kern.proc import killproc

# These find a real defect of the real guest kernel (W17, W18).
BROKEN = {"large", "largetop"}
SOUND = [name for name in WORKLOADS if name not in BROKEN]


@pytest.mark.parametrize("vcpus", [1, 2])
@pytest.mark.parametrize("spec", SOUND)
def test_a_sound_program_ends_well(spec: str, vcpus: int) -> None:
    run = on_host([spec], vcpus=vcpus, seed=vcpus, sticky=0.5)

    assert run.error is None
    assert run.failed == []
    assert run.guests[0].results[1].status == 0


@pytest.mark.parametrize("spec", [spec for spec in SOUND if spec not in RACY])
def test_results_are_those_of_the_reference(spec: str) -> None:
    host, fake = on_host([spec]), on_fake([spec])

    assert host.guests[0].results == fake.vkernel.results


def test_guests_do_not_meet() -> None:
    run = on_host(["touch", "forkcow"], guests=2, vcpus=2)

    assert run.error is None
    assert run.failed == []
    assert run.guests[0].results == run.guests[1].results


@pytest.mark.slow
def test_paging_in_the_guest_on_the_real_host() -> None:
    run = on_host(["hog:pages=20"], vcpus=2, pages=58, swap_pages=24, sticky=0.8)

    assert run.error is None
    assert run.failed == []


@pytest.mark.parametrize(
    ("text", "signal"),
    [((), 4), ((li(1, 7),), 4), ((li(1, DATA_ADDRESS + 1), ld(2, 1)), 10)],
    ids=["empty", "beyond the end", "unaligned"],
)
def test_a_trap_is_the_end_of_the_process_not_of_the_kernel(
    text: tuple[Insn, ...], signal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(spec: str) -> Program:
        return Program("wild", text) if spec == "wild" else workload(spec)

    monkeypatch.setattr(host_rig, "workload", program)
    run = on_host(["wild", "touch"])

    assert run.error is None
    (guest,) = run.guests
    assert {pid: result.status for pid, result in guest.results.items()} == {1: 128 + signal, 2: 0}
    said = [event[1] for event in run.events if event[0] == "console"]
    assert any(line.endswith(f"pid 1: signal {signal}") for line in said)


def test_a_host_that_refuses_the_mapping() -> None:
    run = on_host(["touch"], policy="removed")

    assert run.error is None
    assert run.guests[0].boot_error is not None
    assert "cannot boot" in run.guests[0].boot_error


@pytest.mark.parametrize("seed", range(4))
def test_a_guest_whose_process_is_killed_is_over(seed: int) -> None:
    run = HostRun(["threads", "pipe", "touch"], vcpus=3, checks=[])
    (proc,) = run.host.procs

    async def kill_soon() -> None:
        for _ in range(40 * seed):
            await run.host.vmstats.v_free_count.load()
        await killproc(proc)

    run.execution.spawn("kill", kill_soon())
    run.run(at_random(seed))

    assert run.error is None
    assert run.guests[0].killed == "killed"
    assert run.failed == []


class TestWindows:
    """Documented windows of the real guest kernel, and deliberate ones."""

    @pytest.mark.parametrize("spec", sorted(BROKEN))
    def test_ps_entries_leave_stale_translations(self, spec: str) -> None:
        seen = on_host([spec])
        assert isinstance(seen.error, Violation)
        assert seen.error.invariant == 1

        suffered = on_host([spec], checks=[])
        assert suffered.error is None
        assert len(suffered.failed) == 1

        mended = on_host([spec], mutants=frozenset({"round-pde-inval"}))
        assert mended.error is None
        assert mended.failed == []

    def test_a_refused_inval_can_be_made_to_hurt(self) -> None:
        run = on_host(["largetop"], mutants=frozenset({"check-inval"}), checks=[])

        assert isinstance(run.error, GuestPanic)

    @pytest.mark.parametrize("spec", ["forkcow", "snapshot"])
    def test_m_cleared_without_inval_loses_writes(self, spec: str) -> None:
        mutants = frozenset({"clear-m-without-inval"})
        first, *_ = on_host([spec], vcpus=2, mutants=mutants, checks=[]).failed
        pid, va, expected, got = first
        assert va >= DATA_ADDRESS
        assert expected != got

    def test_early_frame_reuse(self) -> None:
        run = on_host(["pipe"], mutants=frozenset({"early-frame-reuse"}))
        assert isinstance(run.error, Violation)

    def test_kernel_mappings_without_inval(self) -> None:
        mutants = frozenset({"noinval-live"})
        assert isinstance(on_host(["pipe"], mutants=mutants).error, Violation)
        assert on_host(["pipe:rounds=4"], vcpus=2, mutants=mutants, checks=[]).failed != []

    def test_a_copy_made_by_the_kernel_is_not_seen_by_the_program(self) -> None:
        run = on_host(["poke"], mutants=frozenset({"no-cow-vpte"}), checks=[])
        assert run.failed != []

    @pytest.mark.slow
    def test_an_inval_left_for_later(self) -> None:
        options = {"vcpus": 2, "pages": 80, "swap_pages": 40}
        mutants = frozenset({"async-inval"})
        run = on_host(["hog:pages=40"], mutants=mutants, checks=[], **options)
        assert run.failed != []

    def test_inval_before_edit(self) -> None:
        """A store between the two makes a translation that nobody takes away again."""
        mutants = frozenset({"inval-before-edit"})
        runs = [
            on_host(["snapshot"], vcpus=2, seed=seed, sticky=0.9, mutants=mutants)
            for seed in range(8)
        ]
        assert any(isinstance(run.error, Violation) for run in runs)

    @pytest.mark.slow
    def test_destroy_while_mapped_meets_an_inval_in_progress(self) -> None:
        mutants = frozenset({"destroy-while-mapped"})
        checks = [name for name in DEFAULT_CHECKS if name == "refs"]
        errors = [
            on_host(
                ["hog:pages=12,rounds=2"], vcpus=2, pages=44, swap_pages=16, seed=seed, sticky=0.5,
                mutants=mutants, checks=checks,
            ).error
            for seed in range(20, 40)
        ]  # fmt: skip
        assert any(isinstance(error, GuestPanic | Violation) for error in errors)
