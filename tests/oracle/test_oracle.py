"""The oracle as a whole: what it asks for, what it says, and that a log is as good as a run."""

from __future__ import annotations

import pytest
from vkemu.oracle import CHECKS, DEFAULT_CHECKS, Oracle, Violation

from tests.oracle.feed import RO, Feed
from tests.oracle.host import Event, Host
from tests.oracle.hunt import hunt_seeds
from tests.oracle.scenarios import evict, invalidate
from vkhost.kern.panic import Panic


def test_an_unknown_check() -> None:
    with pytest.raises(ValueError, match="no such check: nonsense"):
        Oracle(["nonsense"])


def test_what_nobody_wants_is_dropped() -> None:
    oracle = Oracle(["interlock"])

    assert oracle.wants("ilock.enter")
    assert not oracle.wants("pageout.page")
    oracle("pageout.page", 1, "cache")
    assert oracle.shadow.step == 1


def test_every_check_can_be_had_alone() -> None:
    for name in CHECKS:
        assert Oracle([name]).checks == (name,)
    assert set(Oracle().checks) == set(DEFAULT_CHECKS)


def test_a_violation_tells_its_story() -> None:
    feed = Feed("free-frame").guest()
    feed.enter("fault0", 0, 8, RO)

    with pytest.raises(Violation) as caught:
        feed.free("pagedaemon", 8)

    lines = str(caught.value).splitlines()
    assert lines[0].startswith("invariant 2 (no mapping of a free frame): frame 8 is freed")
    assert "  frame   8" in lines
    assert any("owner   then image[8], now nobody (generation 1)" in line for line in lines)
    assert any(line.startswith("  first   event") and "fault0: pte.write" in line for line in lines)
    assert any("second" in line and "pagedaemon: page.free" in line for line in lines)
    assert any(line.startswith("  apart") for line in lines)
    assert caught.value.check == "free-frame"
    assert caught.value.events[-1].name == "page.free"


def judge(events: list[Event], checks: tuple[str, ...]) -> Violation | None:
    """A log, read by somebody who has nothing else."""
    oracle = Oracle(checks)
    speakers = [""]
    oracle.actor = lambda: speakers[0]
    try:
        for actor, name, args in events:
            speakers[0] = actor
            oracle(name, *args)
        oracle.finish()
    except Violation as violation:
        return violation
    return None


@pytest.mark.parametrize("mutant", ["clean-without-write", "remove-drops-modified"])
def test_a_log_gives_the_verdict_of_the_run(mutant: str) -> None:
    for seed in range(50):
        host = evict(mutants=(mutant,))
        live = failure_of(host, seed)
        if isinstance(live, Violation):
            assert str(judge(host.events, host.oracle.checks)) == str(live)
            return
    pytest.fail("no seed shows it")


def failure_of(host: Host, seed: int) -> BaseException | None:
    try:
        host.run(seed)
    except (Violation, Panic) as failure:
        return failure
    finally:
        host.execution.close()
    return None


def test_a_good_log() -> None:
    host = invalidate()
    host.run(3)

    assert judge(host.events, host.oracle.checks) is None


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["pv_entry", "extent_scan", "vptmapped"])
def test_without_pageout_no_policy_breaks_anything(policy: str) -> None:
    assert hunt_seeds(invalidate, 20, policy=policy) is None


def test_the_same_run_twice() -> None:
    def events(host: Host) -> list[Event]:
        host.run(5)
        return host.events

    assert events(invalidate()) == events(invalidate())
