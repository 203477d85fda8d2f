from __future__ import annotations

from typing import Any

import pytest

from tests.vkhost.machine import SMALL, Machine
from vkhost.config import BOUNDS, HostConfig


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_a_configuration_has_bounds(name: str) -> None:
    low, high = BOUNDS[name]

    def configure(value: Any) -> None:
        HostConfig(**{name: value})

    configure(low)
    configure(high)
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"{name} = {value}: expected {low} to {high}"):
            configure(value)


def test_all_frames_start_free_and_untouched() -> None:
    machine = Machine(pages=10, pqcolors=3)

    assert machine.kernel.vmstats.v_free_count.value == 10
    assert [len(machine.kernel.queues.of(1, color)) for color in range(3)] == [4, 3, 3]
    assert all(frame.generation == 0 for frame in machine.kernel.physmem.frames)


def test_kernels_share_nothing() -> None:
    one, two = Machine(), Machine()
    one.page(one.object(), 0)

    assert two.kernel.vmstats.v_free_count.value == SMALL["pages"]
    assert two.kernel.objects == {}
    assert two.events == []


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        ({}, []),
        ({"ipi_threads": True}, ["ipi0", "ipi1"]),
        ({"fault_workers": True, "cpus": 1}, ["fault0"]),
        ({"pageout": True}, ["pagedaemon"]),
        ({"pageout": True, "emergency": True}, ["pagedaemon", "emergpager"]),
    ],
)
def test_daemons_are_started_as_configured(config: dict[str, Any], threads: list[str]) -> None:
    machine = Machine(**config)

    assert [thread.name for thread in machine.ex.threads.values()] == threads
    assert all(thread.daemon for thread in machine.ex.threads.values())
    machine.ex.close()
