"""Looking for a failure: all schedules with one switch of threads, or a number of random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vkemu.executors.deadlock import Deadlock
from vkemu.oracle import Violation

from tests.oracle.host import Host
from vkhost.kern.panic import Panic

Scenario = Callable[..., Host]


class OneSwitch:
    """A schedule: thread `first` for so many steps, then the others as far as they get, then it
    again. Most windows of the catalogue open to one such switch."""

    def __init__(self, first: int, steps: int) -> None:
        self.first = first
        self.left = steps

    def __call__(self, runnable: list[int]) -> int:
        if self.left and self.first in runnable:
            self.left -= 1
            return self.first
        others = [tid for tid in runnable if tid != self.first]
        return others[0] if others else self.first


STEPS_MAX = 400


def known(failure: BaseException) -> bool:
    """vm_page_cache panics on a page that pmap_remove dirties, which needs no busy, after the scan
    has found it clean. That is so in the real kernel, and no defect of ours."""
    return isinstance(failure, Panic) and "caching a dirty page" in failure.message


def hunt(scenario: Scenario, *, stride: int = 1, **settings: Any) -> BaseException | None:
    """The first failure among all schedules of one switch, or one in so many of them, but for what
    is known."""
    threads = 1
    first = 0
    while first < threads:
        for steps in range(0, STEPS_MAX, stride):
            try:
                host = scenario(**settings)
            except Violation as failure:
                return failure
            threads = len(host.execution.threads)
            schedule = OneSwitch(first, steps)
            try:
                host.execution.run(schedule, 10_000)
                host.oracle.finish()
            except (Violation, Panic, Deadlock) as failure:
                if not known(failure):
                    return failure
            finally:
                host.execution.close()
            if schedule.left:
                break  # the thread ended, or had to wait, before its steps were used up
        first += 1
    return None


def hunt_seeds(
    scenario: Scenario, seeds: int, *, panics: bool = True, **settings: Any
) -> BaseException | None:
    """The first failure among random schedules; panics may be left out."""
    for seed in range(seeds):
        host = scenario(**settings)
        try:
            host.run(seed)
        except (Violation, Panic, Deadlock) as failure:
            if panics or not isinstance(failure, Panic):
                return failure
        finally:
            host.execution.close()
    return None
