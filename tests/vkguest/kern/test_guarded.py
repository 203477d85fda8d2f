"""The guest's plain fields name their locks, and every test here runs with that enforced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vkprotocol.guarded import Unguarded

from tests.vkguest.bench import Bench
from vkguest.vm.vm_object import VmObject


def entries(bench: Bench) -> Any:
    return bench.vmspace().vm_map, "entries"


def pvs(bench: Bench) -> Any:
    return bench.vmspace().pmap, "pvs"


def pv_list(bench: Bench) -> Any:
    return bench.page(), "pv_list"


def pages(bench: Bench) -> Any:
    return VmObject(), "pages"


def free(bench: Bench) -> Any:
    return bench.vkernel.vm_page_queues, "free"


def wire_count(bench: Bench) -> Any:
    return bench.page(), "wire_count"


def pindex(bench: Bench) -> Any:
    return bench.page(), "pindex"


@pytest.mark.parametrize("field", [entries, pvs, pv_list, pages, free, wire_count, pindex])
def test_a_field_is_not_touched_without_its_lock(field: Callable[[Bench], Any]) -> None:
    bench = Bench()
    obj, name = field(bench)

    async def touch() -> None:
        getattr(obj, name)

    with pytest.raises(Unguarded, match=rf"main reads {type(obj).__name__}\.{name} without"):
        bench.run(touch())
