from __future__ import annotations

from typing import Any

import pytest

from tests.vkhost.machine import SMALL, Machine
from vkhost.config import BOUNDS, HostConfig
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_alloc import vm_page_free


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
    queues = [list(machine.kernel.queues.of(1, color)) for color in range(3)]
    assert [[m.pfn for m in q if isinstance(m, VmPage)] for q in queues] == [
        [0, 3, 6, 9], [1, 4, 7], [2, 5, 8],
    ]  # fmt: skip
    assert all(frame.generation == 0 for frame in machine.kernel.physmem.frames.values())


def test_frames_nobody_has_touched_are_not_there() -> None:
    """But those that come next, and their place in the queue is before what is freed."""
    machine = Machine(pages=1_000_000, pqcolors=1)
    kernel = machine.kernel
    obj = machine.object()
    first, second = machine.page(obj, 0), machine.page(obj, 1)
    assert (first.pfn, second.pfn, len(kernel.pages)) == (0, 1, 3)
    machine.do(vm_page_free(second))
    assert machine.page(obj, 1).pfn == 2
    assert len(kernel.queues.of(1, 0)) == kernel.vmstats.v_free_count.value == 999_998
    with pytest.raises(IndexError, match="no frame 1000000, there are 1000000"):
        kernel.physmem.frames[1_000_000]


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
