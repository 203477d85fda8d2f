"""`vkhost` and `vkguest_factory`: guests racing on a live host, and what is said when one loses."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from vkemu.oracle.violation import Violation
from vkemu.testing.live_host import BootFailed, LiveHost
from vkemu.verdict import UsageError

from tests.testing.conftest import Suite

POLICIES = ["pv_entry", "vptmapped", "broadcast", "notifier"]
UNMET = """
@pytest.mark.vkhost(mutants=["enter-without-mapped"])
async def test_unmet(vkguest_factory):
    import trio
    guest = vkguest_factory()
    while guest.host.error is None:
        await trio.lowlevel.checkpoint()
"""


@pytest.mark.slow
@pytest.mark.parametrize("vkhost", POLICIES, indirect=True)
async def test_two_guests_race_and_their_programs_end_as_alone(
    vkhost: LiveHost, vkguest_factory: Any
) -> None:
    assert vkhost.kernel.policy in POLICIES
    one = vkguest_factory(vcpus=2, workloads=["forkcow", "touch:pages=4,rounds=2"])
    other = vkguest_factory(workloads=["forkcow"])
    ends: dict[str, Any] = {}

    async def wait(guest: Any) -> None:
        ends[guest.name] = await guest

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        nursery.start_soon(wait, other)

    assert (one.name, other.name) == ("g1", "g2")
    assert [result.comm for result in ends["g1"].values()].count("forkcow") == 2
    assert {pid: result for pid, result in ends["g1"].items() if result.comm == "forkcow"} == (
        ends["g2"]
    )
    assert all(result.checksum is not None for result in ends["g1"].values())


@pytest.mark.slow
@pytest.mark.vkhost(mutants=["enter-without-mapped"])
async def test_a_violation_is_raised_where_the_guest_is_awaited(vkguest_factory: Any) -> None:
    with pytest.raises(Violation, match="a mapped page is marked mapped"):
        await vkguest_factory()


@pytest.mark.vkhost(policy="removed")
async def test_a_guest_that_cannot_boot_says_why(vkguest_factory: Any) -> None:
    with pytest.raises(BootFailed, match="g1: cannot boot"):
        await vkguest_factory()


@pytest.mark.vkhost(cpus=3)
@pytest.mark.slow
async def test_a_guest_still_running_is_killed_at_the_end(
    vkhost: LiveHost, vkguest_factory: Any
) -> None:
    guest = vkguest_factory(workloads=["forkcow", "touch:pages=8,rounds=100"])
    while guest.vkernel.booted.value == 0:
        await trio.lowlevel.checkpoint()
    assert guest.vkernel.results == {}
    with pytest.raises(ValueError, match="3 vCPUs and 2 idle CPUs"):
        vkguest_factory(vcpus=3)


async def test_a_wrong_option_is_told_as_in_a_scenario(vkguest_factory: Any) -> None:
    with pytest.raises(UsageError, match=r"guest\[0\].mem: unknown key"):
        vkguest_factory(mem="2M")
    with pytest.raises(UsageError, match="policy: unknown 'pv'"):
        LiveHost("pv")


@pytest.mark.slow
def test_a_violation_nobody_awaited_fails_the_test(suite: Suite) -> None:
    result = suite(UNMET)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Violation*"])
